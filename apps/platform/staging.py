"""Copies on every node: a source is read once from the parallel file system and handed round by MPI to node-local disks.

    mpiexec -n 64 --ppn 1 … python -m mpi4py -m apps.platform.staging SOURCE TARGET [--unpack] [--name NAME] [--out FILE]

SOURCE is a folder or a file: a model, an environment's tar. On each node one rank writes it to TARGET/<digest>/ (copies.py);
{rank} in TARGET is filled in. Nodes that have it, whole, get nothing, and where one has it the source is not read at all.
In place of SOURCE and TARGET a SPEC may be given, a JSON or YAML list of mappings with `source`, `target`, and maybe `unpack`
and `name`. With --unpack a tar is unpacked too, --name adds a link TARGET/NAME to what was made. Without MPI it is a plain
copy on this node. Exit status: 0 every node has all of it, 1 some have not, 2 wrong input.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import sys
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from apps import records
from apps.platform import copies, mpi, unpacking
from apps.platform.copies import Copy, File, Supply
from apps.records import MeritError

SHOWN = 20  # verdicts that are printed; those of failures all are


class Wanted(records.Options):
    """What is to be on every node."""

    source: str
    target: str
    unpack: bool = False
    name: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a rank says of one source. A rank that leaves the work to another of its node says nothing."""

    rank: int
    host: str
    source: str
    state: str  # "copied", "there" (it was, whole), "failed"
    path: str = ""  # of the copy; of the unpacked tree where there is one
    bytes: int = 0
    seconds: float = 0.0
    fault: str = ""


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="staging", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("source", help="a folder, a file, or a SPEC")
    parser.add_argument("target", nargs="?", default="", help="a node-local folder")
    parser.add_argument("--unpack", action="store_true", help="unpack the tar, too")
    parser.add_argument("--name", default="", help="of a link in TARGET to what was made")
    parser.add_argument("--out", type=Path, help="JSON file for the verdicts")
    given = parser.parse_args(words)
    world = mpi.join() if "mpi4py" in sys.modules else mpi.World()
    try:
        everything = [verdict for one in _wanted(given) for verdict in stage(one, world)]
    except MeritError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 2  # under mpi4py this ends the other ranks
    if world.rank == 0:
        print(table(everything), flush=True)
        if given.out:
            given.out.write_text(json.dumps([asdict(verdict) for verdict in everything], indent=1) + "\n")
    sys.stdout.flush()
    return int(world.rank == 0 and any(verdict.state == "failed" for verdict in everything))


def _wanted(given: argparse.Namespace) -> list[Wanted]:
    if given.target:
        return [Wanted(source=given.source, target=given.target, unpack=given.unpack, name=given.name)]
    try:
        return TypeAdapter(list[Wanted]).validate_python(yaml.safe_load(Path(given.source).read_text(encoding="utf-8")))
    except (OSError, ValueError, yaml.YAMLError, ValidationError) as error:
        raise MeritError(
            f"staging {given.source}: without a TARGET this is to be a SPEC, a list of mappings with source and target: {error}"
        ) from error


def stage(wanted: Wanted, world: mpi.World) -> list[Verdict]:
    """Brings one source to every node; all ranks have to ask, and all are told the verdicts of all."""
    started, target = time.perf_counter(), Path(wanted.target.replace("{rank}", str(world.rank))).absolute()
    verdict: Verdict | None = Verdict(world.rank, socket.gethostname(), wanted.source, "failed")
    try:
        source = Path(wanted.source).resolve()
        copy = copies.copy(source, target) if world.size == 1 else shared(source, target, world)
        verdict = replace(verdict, **_finished(wanted, target, copy)) if copy else None
    except copies.Unreadable:
        raise  # the source's fault, so nobody can have it
    except (MeritError, OSError) as error:
        verdict = replace(verdict, fault=str(error))
    if verdict:
        verdict = replace(verdict, seconds=round(time.perf_counter() - started, 3))
    return [one for one in mpi.all_say(world, verdict) if one]


def _finished(wanted: Wanted, target: Path, copy: Copy) -> dict[str, Any]:
    path, made = unpacking.unpack(copy.path, target) if wanted.unpack else (copy.path, False)
    if wanted.name:
        aside = target / f".{uuid.uuid4().hex}"
        aside.symlink_to(path)
        os.replace(aside, target / wanted.name)
    return {"state": "copied" if copy.made or made else "there", "path": str(path), "bytes": copy.bytes}


def shared(source: Path, target: Path, world: mpi.World) -> Copy | None:
    """The copy on this node, from whoever has the source's contents nearest; None where another rank of the node sees to it."""
    from mpi4py import MPI

    everyone = MPI.COMM_WORLD
    files = everyone.bcast(copies.listing(source) if world.rank == 0 else None)
    has, digest, fault = _standing(everyone, target, files)
    standings = everyone.allgather((has, digest))
    wanting = [rank for rank, (has, _) in enumerate(standings) if has is False]
    reader = next((rank for rank, (has, _) in enumerate(standings) if has), 0)
    if wanting:
        taking = world.rank in wanting
        part = everyone.Split(0 if taking or world.rank == reader else MPI.UNDEFINED, world.rank != reader)
        if part != MPI.COMM_NULL:
            place = target / digest if digest else source.parent  # who reads, and has a copy, reads that
            supply = handed_round(part, copies.reading(place) if world.rank == reader else None)
            digest, fault = _received(part, files, target if taking else None, supply, fault)
            part.Free()
    if fault:
        raise MeritError(fault)
    return Copy(target / digest / source.name, world.rank in wanting, copies.total(files)) if digest else None


def _standing(everyone: Any, target: Path, files: Sequence[File]) -> tuple[bool | None, str | None, str | None]:
    """(whether this rank has a copy, its digest, why it can have none). (None, None, None) for a rank that is not to have one.

    One rank of a node sees to a target.
    """
    from mpi4py import MPI

    node = everyone.Split_type(MPI.COMM_TYPE_SHARED)
    place = (node.bcast(everyone.Get_rank()), str(target))
    node.Free()
    places = everyone.allgather(place)
    if places.index(place) != everyone.Get_rank():
        return None, None, None
    try:
        digest = copies.there(target, copies.stamp(files))
        if digest is None:
            copies.check_room(target, files)
        return digest is not None, digest, None
    except (MeritError, OSError) as error:
        return None, None, str(error)


def handed_round(part: Any, read: Supply | None) -> Supply:
    """A piece that the first rank of `part` reads and all of its ranks get. Only the first has `read`."""
    from mpi4py import MPI

    def supply(file: File, offset: int, buffer: memoryview) -> None:
        if read:
            read(file, offset, buffer)
        if buffer:
            part.Bcast([buffer, MPI.BYTE])

    return supply


def _received(
    part: Any, files: Sequence[File], target: Path | None, supply: Supply, fault: str | None
) -> tuple[str, str | None]:
    """The digest of what arrived, and why it cannot be used; a rank without a target has handed round alone."""
    digest, unwritten = copies.write(files, target, supply)
    right = part.bcast(digest)
    if target is None:
        return digest, fault
    if digest != right:
        shutil.rmtree(target / digest, ignore_errors=True)
        unwritten = "it arrived with other contents than were sent"
    if unwritten is None:
        copies.remember(target, copies.stamp(files), digest)
    return digest, unwritten


def table(verdicts: Sequence[Verdict]) -> str:
    """A line for each failure and for some of the others, and how many there are of each."""
    failed = [verdict for verdict in verdicts if verdict.state == "failed"]
    well = [verdict for verdict in verdicts if verdict.state != "failed"]
    lines = [f"{v.host}  {v.source}  failed: {v.fault}" for v in failed]
    lines += [
        f"{v.host}  {v.source}  {v.state}  {v.bytes / 1e6:.0f} MB  {v.seconds:.1f} s  {v.path}" for v in well[:SHOWN]
    ]
    counts = Counter(verdict.state for verdict in verdicts)
    return "\n".join([*lines, ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
