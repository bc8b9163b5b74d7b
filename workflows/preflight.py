"""The command that looks at the nodes of a job before it starts: `preflight`."""

from __future__ import annotations

import importlib.util
import json
import socket
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workflows import config as configuration
from workflows import run_folder, sites

if TYPE_CHECKING:
    from apps.platform.fitness import Found
    from apps.platform.preflight import Result

SHOWN = 20  # good nodes that the table names; the file has all of them


def preflight(
    site: Annotated[str, typer.Option(help="where: a folder of site/, or a path")] = "local",
    site_option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="an option of the site; may be repeated")
    ] = None,
    at_least: Annotated[int, typer.Option(min=1, help="good nodes that the job needs")] = 1,
    store: Annotated[str, typer.Option(help="folder of finished results, which every node has to see")] = "store",
    free_gib: Annotated[float, typer.Option(min=0, help="GiB that TMPDIR, store and staging need, each")] = 1.0,
    clock_s: Annotated[float, typer.Option(min=0, help="seconds that a clock may be wrong")] = 5.0,
    want: Annotated[
        list[str] | None, typer.Option(metavar="MODULE", help="a further module to import, such as deepspeed or vllm")
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, help="seconds that a launch may take")] = 120.0,
    nodefile: Annotated[Path | None, typer.Option(help="file for the good nodes, a line each")] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file for all that was found")] = None,
) -> None:
    """Checks every node: devices, memory, arithmetic, imports, disks, clock, an all-reduce. Exit status 1 where too few are good."""
    from apps.platform import fitness, preflight, probe

    given = {key: value for word in site_option or () for key, value in configuration.parse_word(word).items()}
    place = sites.load(site, **given)
    if nodefile:
        nodefile.unlink(missing_ok=True)  # one of an earlier job names nodes that may be bad by now
    nodes = place.hosts or (socket.gethostname(),)
    folders = {"store": str(Path(store).absolute()), **({"staging": str(place.staging)} if place.staging else {})}
    imports = (*probe.Question().imports, *(want or ()))
    wanted = fitness.Wanted(place.devices_per_node, free_gib, clock_s)
    with _shared(Path(folders["store"])) as (folder, token):
        question = probe.Question(place.device, imports, folders, str(token))
        over = place.launcher if importlib.util.find_spec("mpi4py") else None
        plain = place.on_hosts if place.hosts else None
        launches = preflight.Launches(folder, plain, over, place.cores, place.environment, timeout)
        typer.echo(f"Asking {len(nodes)} node{'s' * (len(nodes) > 1)} …", err=True)
        result = preflight.fly(nodes, question, wanted, launches)
    if out:
        _write(out, json.dumps({"site": site, **asdict(result)}, indent=1) + "\n")
    typer.echo(table(result))
    if len(result.good) < at_least:
        typer.echo(
            f"error: {len(result.good)} of {len(nodes)} nodes are good, {at_least} are needed (--at-least)", err=True
        )
        raise typer.Exit(1)
    if nodefile:
        _write(nodefile, "".join(f"{node}\n" for node in result.good))


@contextmanager
def _shared(store: Path) -> Iterator[tuple[Path, Path]]:
    """A folder that every node is to see, with a file in it that was written just now."""
    store.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="preflight-", dir=store) as folder:
        token = Path(folder) / uuid.uuid4().hex
        token.touch()
        yield Path(folder), token


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    run_folder.write(file, text)


def table(result: Result) -> str:
    """A line a node, the bad ones with all that is wrong; then what they did together."""
    rows = [("node", "devices", "memory", "product", "TMPDIR", "store", "clock", "")]
    rows += [_row(node, result.found[node], why) for node, why in result.bad.items()]
    rows += [_row(node, result.found[node]) for node in result.good[:SHOWN]]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    if len(result.good) > SHOWN:
        lines.append(f"… and {len(result.good) - SHOWN} more good ones")
    versions = ", ".join(f"{module} {version}" for module, version in result.usual.versions.items())
    return "\n".join([*lines, *([f"libraries: {versions}"] if versions else ()), *_together(result)])


def _row(node: str, found: Found, why: Sequence[str] = ()) -> tuple[str, ...]:
    from apps.platform import fitness

    answer = found.answer
    if answer is None:
        return (node, *["-"] * 6, "; ".join(why))
    memory = min((device.memory_gib for device in answer.devices), default=0.0)
    rates = min((device.gflops for device in answer.devices), default=0.0)
    disks = [
        f"{answer.free_gib[purpose]:g} GiB" if purpose in answer.free_gib else "-" for purpose in ("TMPDIR", "store")
    ]
    clock = f"{fitness.skew(found):+.1f} s"
    devices = f"{len(answer.devices)} {answer.kind}"
    return (node, devices, f"{memory:g} GiB", f"{rates:g} GFLOP/s", *disks, clock, "; ".join(why) or "good")


def _together(result: Result) -> list[str]:
    lines = []
    if result.together:
        told: Mapping[str, object] = result.together
        lines.append(
            f"all-reduce: {told['ranks']} ranks over {told['backend']}, {told['gbit_s']} Gbit/s, sums are right"
        )
    if ways := result.device_id:
        advice = "; export MERIT_DEVICE_ID=1" if ways["without"] != "works" == ways["with"] else ""
        lines.append("ranks meet " + ", ".join(f"{name} device_id: {told}" for name, told in ways.items()) + advice)
    return [*lines, f"{len(result.good)} of {len(result.found)} nodes are good"]
