"""The command that looks ahead: `simulate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from apps.records import MeritError
from workflows import config as configuration

STAGE_TIMES = Path(__file__).parents[2] / "docs" / "stage_times.yaml"


def simulate(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="settings of the run, such as credit.name=uniform"),
    ] = None,
    stage_times: Annotated[
        Path, typer.Option(help="how long stages take: a YAML file, see docs/stage_times.yaml")
    ] = STAGE_TIMES,
    nodes: Annotated[str, typer.Option(help="numbers of nodes, with commas between; default: 1 to 10000")] = "",
    overlap: Annotated[
        str, typer.Option(help="0, 1, or both: whether a round is played while the last one trains")
    ] = "both",
    sharing: Annotated[
        str,
        typer.Option(
            help="measured, fixed, or both: training's nodes are lent by inference in each round, or set aside for the job"
        ),
    ] = "both",
    advise: Annotated[bool, typer.Option("--plan", help="suggest shard sizes and shares of nodes")] = False,
    config: Annotated[Path | None, typer.Option(help="a YAML file of settings; see workflows/configs/")] = None,
    measured: Annotated[
        str, typer.Option(metavar="RUN", help="predict from a finished local run: a name in runs/, or a folder")
    ] = "",
    site_option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="with --measured: of the local site of the other run, such as cores=1"),
    ] = None,
    seed: Annotated[int, typer.Option(help="of failures and of how long tasks take")] = 0,
    out: Annotated[Path, typer.Option(help="folder for the table and the figure")] = Path("runs/simulation"),
) -> None:
    """Says what a run would take on so many nodes: its plan is carried out by a simulation, no work is done.

    With --measured: what a run like a finished one would take on this machine, with other settings or another site.
    """
    from workflows import post_train
    from workflows.simulation import forecast, times
    from workflows.simulation.placement import POLICIES

    if measured:
        return _from_run(measured, list(words or []), list(site_option or []), out)
    if site_option:
        raise MeritError("--site-option goes with --measured; numbers of nodes are told by --nodes")
    for name, given, known in (("overlap", overlap, ["0", "1"]), ("sharing", sharing, list(POLICIES))):
        if given not in (*known, "both"):
            raise MeritError(f"--{name} {given!r}: {', '.join(known)} or both is expected")
    told = times.read(stage_times)
    settings = configuration.load(post_train.Config, config, list(words or []))
    rows = []
    typer.echo(f"Stage times: {told.what}\n{forecast.heading()}")
    counts = forecast.numbers(nodes) if nodes else forecast.NODES
    sharings = list(POLICIES) if sharing == "both" else [sharing]
    overlaps = (0, 1) if overlap == "both" else (int(overlap),)
    for row in forecast.rows(settings, told, counts, sharings, overlaps, seed):
        rows.append(row)
        typer.echo(forecast.line(row))
    if advise:
        typer.echo("\n".join(line for count in counts for line in forecast.advice(told, count, rows)))
    forecast.write(rows, out)
    typer.echo(f"\nTable and figure: {out}")


def _from_run(run: str, words: list[str], site_option: list[str], out: Path) -> None:
    """From a finished run to another one, on one machine."""
    from workflows import post_train, sites
    from workflows.simulation import again

    of = again.read(run)
    settings = configuration.load(post_train.Config, of.folder / "config.yaml", words)
    options = {key: value for word in site_option for key, value in configuration.parse_word(word).items()}
    site = sites.load("local", **options) if options else of.site
    typer.echo("\n".join(again.lines(of, [*words, *site_option], again.predict(of, settings, site))))
    typer.echo(f"\nIts stage times: {again.write(of, out)}")
