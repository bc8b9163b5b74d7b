"""The commands that see to the nodes of a job before it starts: `preflight` and `stage`."""

from __future__ import annotations

import importlib.util
import json
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from apps.records import MeritError
from workflows import config as configuration
from workflows import sites
from workflows.driver import run_folder

if TYPE_CHECKING:
    from apps.platform.fitness import Found
    from apps.platform.preflight import Heard, Launches, Result

SiteOption = Annotated[
    list[str] | None, typer.Option(metavar="KEY=VALUE", help="an option of the site; may be repeated")
]
AtLeast = Annotated[int, typer.Option(min=1, help="good nodes that the job needs")]
NodeFile = Annotated[Path | None, typer.Option(help="file for the good nodes, a line each; see MERIT_NODEFILE")]
Store = Annotated[str, typer.Option(help="folder of finished results, which every node has to see")]
SHOWN = 20  # good nodes that the table names; the file has all of them


def preflight(
    site: Annotated[str, typer.Option(help="where: a folder of site/, or a path")] = "local",
    site_option: SiteOption = None,
    at_least: AtLeast = 1,
    nodefile: NodeFile = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="disks and clocks alone: before an environment is staged")
    ] = False,
    want: Annotated[
        list[str] | None, typer.Option(metavar="MODULE", help="a further module to import, such as deepspeed or vllm")
    ] = None,
    free_gib: Annotated[float, typer.Option(min=0, help="GiB that TMPDIR, store and staging need, each")] = 1.0,
    clock_s: Annotated[float, typer.Option(min=0, help="seconds that a clock may be wrong")] = 5.0,
    timeout: Annotated[float, typer.Option(min=1, help="seconds that a launch may take")] = 120.0,
    store: Store = "store",
    out: Annotated[Path | None, typer.Option(help="JSON file for all that was found")] = None,
) -> None:
    """Checks every node: devices, memory, arithmetic, imports, disks, clock, an all-reduce. Exit status 1: too few are good."""
    from apps.platform import fitness, preflight, probe

    place, nodes = _place(site, site_option, nodefile)
    folders = {"store": str(Path(store).absolute()), **({"staging": str(place.staging)} if place.staging else {})}
    imports = () if quick else (*probe.Question().imports, *(want or ()))
    wanted = fitness.Wanted(place.devices_per_node, free_gib, clock_s)
    with _shared(Path(store)) as folder:
        token = folder / "token"
        token.touch()
        question = probe.Question(place.device, imports, folders, str(token), not quick)
        typer.echo(f"Asking {len(nodes)} node{'s' * (len(nodes) > 1)} …", err=True)
        result = preflight.fly(nodes, question, wanted, _launches(place, folder, timeout))
    if out:
        _write(out, json.dumps({"site": site, **asdict(result)}, indent=1) + "\n")
    typer.echo(table(result))
    _enough(result.good, nodes, at_least, nodefile)


def stage(
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE...", help="models, or an environment's tar")],
    site: Annotated[
        str, typer.Option(help="where: a folder of site/, or a path; it says where to, as `staging`")
    ] = "local",
    site_option: SiteOption = None,
    at_least: AtLeast = 1,
    nodefile: NodeFile = None,
    unpack: Annotated[bool, typer.Option("--unpack", help="unpack each, a tar, on every node")] = False,
    name: Annotated[str, typer.Option(help="of a link beside the copies to what was made")] = "",
    timeout: Annotated[float, typer.Option(min=1, help="seconds that all of it may take")] = 1800.0,
    store: Store = "store",
) -> None:
    """Copies models and environments to every node: read once, handed round by MPI, skipped where they are there.

    A node that dies meanwhile is left out where the launcher says which it was, and the others begin again.
    """
    from apps.platform import preflight, staging

    place, nodes = _place(site, site_option, nodefile)
    if place.staging is None:
        raise MeritError(f"stage: site {place.name} names no folder for copies; add --site-option staging=/tmp/merit")
    with _shared(Path(store)) as folder:
        wanted = [
            {"source": str(Path(s).absolute()), "target": str(place.staging), "unpack": unpack, "name": name}
            for s in sources
        ]
        (folder / "spec.json").write_text(json.dumps(wanted), encoding="utf-8")
        program = ("apps.platform.staging", str(folder / "spec.json"), "--out", str(folder / "verdicts.json"))
        launches = replace(_launches(place, folder, timeout), ranks=None)
        result = folder / "verdicts.json"
        nodes = _by_all(
            nodes,
            lambda those: preflight.listen(launches.words(those, 1, program, True), launches.environment, timeout),
            result,
        )
        verdicts = [staging.Verdict(**one) for one in json.loads(result.read_text())]
    typer.echo(staging.table(verdicts))
    failed = {verdict.rank for verdict in verdicts if verdict.state == "failed"}
    _enough([node for rank, node in enumerate(nodes) if rank not in failed], nodes, at_least, nodefile)


def _by_all(nodes: Sequence[str], launch: Callable[[Sequence[str]], Heard], result: Path) -> Sequence[str]:
    """Launches on all nodes until there is a result; those on which there is. Who dies in the middle is left out."""
    from apps.platform import launchers

    while True:
        heard = launch(nodes)
        if result.is_file():
            return nodes
        lost = launchers.called(launchers.dead_node(heard.words), nodes)
        if lost not in nodes or len(nodes) == 1:
            typer.echo(f"error: stage: {heard.fault}", err=True)
            raise typer.Exit(1)
        typer.echo(f"{lost} has died, so the others begin again without it: {heard.fault}", err=True)
        nodes = [node for node in nodes if node != lost]


def _place(site: str, site_option: Sequence[str] | None, nodefile: Path | None) -> tuple[sites.Site, tuple[str, ...]]:
    """The site, and the nodes that this job has of it. A nodefile of before is removed: its nodes may be bad by now."""
    given = {key: value for word in site_option or () for key, value in configuration.parse_word(word).items()}
    place = sites.load(site, **given)
    if place.elsewhere and not place.hosts:
        raise MeritError(f"site {place.name}: its nodes are those of a job, and this is none; see jobs/ for scripts")
    if nodefile:
        nodefile.unlink(missing_ok=True)
    return place, place.hosts or (socket.gethostname(),)


def _launches(place: sites.Site, folder: Path, timeout_s: float) -> Launches:
    from apps.platform import preflight

    over = place.launcher if importlib.util.find_spec("mpi4py") else None
    plain = place.on_hosts if place.hosts else None
    return preflight.Launches(folder, plain, over, place.cores, place.environment, timeout_s)


def _enough(good: Sequence[str], nodes: Sequence[str], at_least: int, nodefile: Path | None) -> None:
    """Writes the good nodes down; ends with status 1 where they are too few."""
    if len(good) < at_least:
        typer.echo(f"error: {len(good)} of {len(nodes)} nodes are good, {at_least} are needed (--at-least)", err=True)
        raise typer.Exit(1)
    if nodefile:
        _write(nodefile, "".join(f"{node}\n" for node in good))


@contextmanager
def _shared(store: Path) -> Iterator[Path]:
    """A folder that every node is to see, while it lasts."""
    store.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="nodes-", dir=store.absolute()) as folder:
        yield Path(folder)


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
