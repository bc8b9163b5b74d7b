"""The command that gives back what a store holds for nobody: `store gc`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from apps import leaf
from apps.records import MeritError

store = typer.Typer(help="What is done with the store of finished results.", no_args_is_help=True)


@store.callback()
def _store() -> None:
    """What is done with the store of finished results."""


@store.command()
def gc(
    folder: Annotated[str, typer.Option("--store", help="the store")] = "store",
    runs: Annotated[str, typer.Option(help="folder of the runs")] = "runs",
    yes: Annotated[bool, typer.Option("--yes", help="remove it; default: ask on a terminal, else only say")] = False,
) -> None:
    """Says what of the store no run refers to, and removes it. Remove the folders of runs first whose results may go.

    Nothing goes that a run refers to, finished or not, wherever its folder is.
    """
    from workflows.driver import garbage

    root = Path(folder).absolute()
    if not root.is_dir():
        raise MeritError(leaf.no_file("--store", root))
    found = garbage.clean(root, Path(runs), remove=yes)
    typer.echo(table(found))
    if yes or not found.places:
        return
    if sys.stdin.isatty() and typer.confirm("Remove it?"):
        garbage.clean(root, Path(runs), remove=True)
        typer.echo("Removed.")
    else:
        typer.echo("Nothing was removed; with --yes it is.")


def table(found: object) -> str:
    """A line a stage, and the sum."""
    from workflows.driver.garbage import Found

    assert isinstance(found, Found)
    rows = [(name, len(places), found.bytes[name]) for name, places in sorted(found.places.items())]
    rows.append(("all", sum(len(places) for places in found.places.values()), found.total))
    lines = [
        f"{'free':<16}{'number':>8}{'size':>12}",
        *(f"{n:<16}{count:>8}{size(total):>12}" for n, count, total in rows),
    ]
    lines.append(f"\nkept: {found.kept} results that {len(found.runs)} runs refer to")
    silent = [
        f"{run} does not say what it refers to: begun by an older version, and not finished" for run in found.silent
    ]
    return "\n".join([*lines, *silent])


def size(count: int) -> str:
    """Bytes, for people."""
    amount, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if amount < 1000:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
