"""Compares two finished runs: every figure of the trained teams on the same held-out tasks, with paired tests."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apps import artifacts, dormant, leaf
from apps.evaluation import compare
from apps.evaluation.compare import Row
from apps.inference import traces
from apps.records import Graded, MeritError
from apps.reward import verdicts
from workflows.commands import inspect_run

MODES = {"greedy": "after_greedy", "sampled": "after_sampled"}  # -> what the report calls the measure


@dataclass(frozen=True, slots=True)
class Played:
    """What a team did on its test tasks."""

    run: str
    plays: Mapping[str, Sequence[Graded]]  # by task
    duties: Mapping[str, str]


def compared(runs: Path, first: str, second: str) -> dict[str, list[Row]]:
    """The rows of each mode; MeritError where the tasks are not the same."""
    return {mode: _rows(played(runs, first, mode), played(runs, second, mode)) for mode in MODES}


def played(runs: Path, run: str, mode: str) -> Played:
    """The plays of a run's trained team."""
    folder = inspect_run.folder_of(runs, run)
    root, index = inspect_run.store_of(folder), json.loads((folder / "artifacts.json").read_text())
    entries = {entry["key"]: entry for entry in index}
    report = next((entry for entry in index if MODES[mode] in entry["inputs"]), None)
    if report is None:
        raise MeritError(f"{folder}: no team was measured in this run; name one of post_train")
    measure = entries[report["inputs"][MODES[mode]][0]]
    place = {name: [_whole(root, entries[key]) for key in measure["inputs"][name]] for name in ("rollout", "grade")}
    by_task: dict[str, list[Graded]] = defaultdict(list)
    for rollout, grade in zip(place["rollout"], place["grade"], strict=True):
        for graded in verdicts.read(grade, traces.read(rollout / traces.FILE)):
            by_task[graded.trace.task].append(graded)
    options = artifacts.manifest(_whole(root, measure))["record"]["options"]
    return Played(run, by_task, leaf.find("topologies", options["topology"]["name"]).DUTIES)


def table(found: Mapping[str, Sequence[Row]], first: str, second: str) -> str:
    """Plain text: a line a figure."""
    lines: list[tuple[str, ...]] = []
    for mode, rows in found.items():
        lines.append((f"{mode}, test tasks", first, second, "difference", "p", "p (Holm)"))
        lines += [_line(row) for row in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(6)]
    return "\n".join(_laid(lines, widths)) + (
        "\n\nSecond less first, paired by task; 95 % intervals draw whole tasks. p: two-sided, of sign flips (accuracies) or of labels\n"
        "swapped by task. Holm: corrected for all figures of its part of the table."
    )


def _rows(first: Played, second: Played) -> list[Row]:
    if set(first.plays) != set(second.plays):
        common = len(set(first.plays) & set(second.plays))
        raise MeritError(
            f"{first.run} was measured on {len(first.plays)} test tasks, {second.run} on {len(second.plays)}, and they have {common} in "
            "common: a paired test wants the same tasks. Compare runs of one seed with the same tasks and evaluation.tasks, "
            "or let both be measured on the whole test split"
        )
    duties = {role: duty for role, duty in first.duties.items() if second.duties.get(role) == duty}
    return compare.compared(first.plays, second.plays, duties)


def _whole(root: Path, entry: Mapping[str, Any]) -> Path:
    path = dormant.copied(artifacts.locate(root, entry["stage"], entry["key"]))
    if reason := artifacts.check(path):
        raise MeritError(f"{path} cannot be used: {reason}; run the same run again, which makes it anew")
    return path


def _line(row: Row) -> tuple[str, ...]:
    *where, last = row.name
    mark = " " if last.isdigit() else ": "  # pass_at 4, critic: recall
    name = mark.join([*where, last]).removeprefix("roles: ").replace("_", " ")
    shown = {"accuracy": "team accuracy", "single": "solver alone"}.get(name, name)
    apart = f"{row.difference:+.3f} [{row.low:+.3f}, {row.high:+.3f}]"
    return shown, f"{row.first:.3f}", f"{row.second:.3f}", apart, f"{row.p:.2g}", f"{row.holm:.2g}"


def _laid(lines: Sequence[tuple[str, ...]], widths: Sequence[int]) -> Iterator[str]:
    for number, line in enumerate(lines):
        head = line[-1] == "p (Holm)"
        if head and number:
            yield ""
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        yield text
        if head:
            yield "-" * (sum(widths) + 2 * (len(widths) - 1))
