"""The commands that look at finished runs: `trace`, `why`, `datasets`, `compare` and `export`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def trace(
    run: Annotated[str, typer.Argument(help="a run's name or folder")],
    task: Annotated[str, typer.Argument(help="a task's id, or the start of one; none: the tasks that were shown")] = "",
    when: Annotated[str, typer.Option(help="before, after, or the number of a training round")] = "after",
    full: Annotated[bool, typer.Option("--full", help="shorten nothing")] = False,
    runs: Annotated[str, typer.Option(help="folder of the runs")] = "runs",
) -> None:
    """Prints the traces of a task as conversations, with verdicts and credit beside the turns."""
    from apps.report import conversation
    from workflows.commands import inspect_run

    for one in inspect_run.found(Path(runs), run, task, when):
        color = sys.stdout.isatty()
        typer.echo(conversation.conversation(one.graded, one.credit, color=color, task=one.task, full=full))


def why(
    run: Annotated[str, typer.Argument(help="a run's name or folder")],
    task: Annotated[str, typer.Argument(help="a task's id, or the start of one")],
    when: Annotated[str, typer.Option(help="before, after, or the number of a training round")] = "after",
    full: Annotated[bool, typer.Option("--full", help="shorten nothing")] = False,
    runs: Annotated[str, typer.Option(help="folder of the runs")] = "runs",
) -> None:
    """Explains the credit of each agent in the traces of a task, from the replays that it rests on."""
    from apps.report import conversation
    from workflows.commands import inspect_run

    for one in inspect_run.found(Path(runs), run, task, when):
        if one.credit:
            typer.echo(conversation.explain(one.graded, one.credit, one.findings, one.index, full))


def datasets(
    run: Annotated[str, typer.Argument(help="a run's name or folder")],
    out: Annotated[Path, typer.Option(help="folder that is made: AGENT.jsonl and README.md")],
    kind: Annotated[str, typer.Option(help="sft, pairs, kto or rl")] = "sft",
    agent: Annotated[str, typer.Option(help="of this agent alone; default: of each")] = "",
    when: Annotated[
        str, typer.Option(help="the number of a training round, all of them, or before or after: those are test tasks")
    ] = "all",
    threshold: Annotated[float, typer.Option(help="the value that parts good turns from bad ones: sft, kto")] = 0.0,
    margin: Annotated[
        float, typer.Option(min=0, help="how far apart a pair's values are, or how far from the threshold: pairs, kto")
    ] = 0.0,
    runs: Annotated[str, typer.Option(help="folder of the runs")] = "runs",
) -> None:
    """Writes what a run's credit makes for other trainers: JSONL for each agent, in TRL's column names."""
    from apps.credit.datasets import Rule
    from workflows.commands import data_sets, inspect_run

    folder = inspect_run.folder_of(Path(runs), run)
    counts = data_sets.write(folder, out, kind, Rule(threshold, margin), agent, when)
    columns({name: f"{count} rows" for name, count in sorted(counts.items())})
    typer.echo(f"\nWritten to {out}")


def compare(
    first: Annotated[str, typer.Argument(help="a run's name or folder; a study's run is STUDY/RUN")],
    second: Annotated[str, typer.Argument(help="another one, measured on the same test tasks")],
    runs: Annotated[str, typer.Option(help="folder of the runs")] = "runs",
) -> None:
    """Compares the trained teams of two runs on the same held-out tasks, every figure with a paired test."""
    from workflows.commands import compare as comparison

    found = comparison.compared(Path(runs), first, second)
    typer.echo(comparison.table(found, first, second))


def export(
    run: Annotated[str, typer.Argument(help="a run's name or folder")],
    out: Annotated[
        Path, typer.Option(help="folder that is made: of --agent itself, else OUT/AGENT of each trained one")
    ],
    agent: Annotated[str, typer.Option(help="this agent alone; default: each that was trained")] = "",
    merge: Annotated[
        bool,
        typer.Option(
            "--merge", help="a whole model with the adapter in its weights; default: an adapter in PEFT format"
        ),
    ] = False,
    base: Annotated[str, typer.Option(help="where the base model lies now; default: where the run found it")] = "",
    dtype: Annotated[str, typer.Option(help="of merged weights: float32 or bfloat16")] = "float32",
    runs: Annotated[str, typer.Option(help="folder of the runs")] = "runs",
) -> None:
    """Writes trained agents as adapters or models that plain transformers loads, with tokenizer and model card."""
    from workflows.commands import export as exported
    from workflows.commands import inspect_run

    for folder in exported.write(inspect_run.folder_of(Path(runs), run), out, agent, merge, base, dtype):
        typer.echo(str(folder))


def columns(rows: dict[str, str]) -> None:
    width = max(map(len, rows), default=0) + 2
    for name, text in rows.items():
        typer.echo(f"{name:<{width}}{text}")
