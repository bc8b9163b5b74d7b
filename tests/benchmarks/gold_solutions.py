"""How many gold answers and worked gold solutions verify as right: a Markdown table for docs/results.md.

    python tests/benchmarks/gold_solutions.py FOLDER   # with gsm8k/, math/ and aqua/

A gold *answer* must always verify against itself. A gold *solution* verifies where it states its answer in a form that the
verifier reads; the rest is the verifier's strictness seen on text that was not written for it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from apps import leaf
from apps.records import Task
from apps.reward import aside
from tests.benchmarks.figures import Figure

SETS = (
    ("gsm8k", "gsm8k", "train"),
    ("gsm8k", "gsm8k", "validation"),
    ("gsm8k", "gsm8k", "test"),
    ("math", "math", "test"),
    ("multiple_choice", "aqua", "test"),
)


def main(folder: Path) -> None:
    print(
        "| tasks | split | rows | gold answers right | gold solutions right | not parsed | parsed, wrong | by text alone | s |"
    )
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|")
    for family, name, split in SETS:
        module = leaf.find("tasks", family)
        print(
            row(name, split, module.VERIFIER, module.load(split, module.Options(path=str(folder / name)))), flush=True
        )


def figures() -> Iterator[Figure]:
    """Gold answers that the verifiers find right, for `make bench`: of the data sets in `MERIT_DATA`."""
    folder = Path(os.environ.get("MERIT_DATA") or Path(__file__).parents[3] / "shared" / "data")
    for family, name, split in SETS:
        if not (folder / name).is_dir():
            yield Figure(f"gold_{name}_{split}", None, "tasks/s", remark=f"not run: MERIT_DATA has no folder {name}/")
            continue
        module = leaf.find("tasks", family)
        tasks = module.load(split, module.Options(path=str(folder / name)))
        reward = leaf.find("reward", module.VERIFIER)
        began = time.perf_counter()
        right = sum(reward.verify(task, f"ANSWER: {task.answer}", reward.Options()).right for task in tasks)
        rate = len(tasks) / (time.perf_counter() - began)
        yield Figure(f"gold_{name}_{split}", rate, "tasks/s", remark=f"{right} of {len(tasks)} gold answers right")


def row(name: str, split: str, verifier: str, tasks: list[Task]) -> str:
    """One line of the table."""
    began = time.perf_counter()
    reward = leaf.find("reward", verifier)
    options = reward.Options()
    answers = sum(reward.verify(task, f"ANSWER: {task.answer}", options).right for task in tasks)
    verdicts = [reward.verify(task, task.solution, options) for task in tasks]
    right = sum(verdict.right for verdict in verdicts)
    unparsed = sum(verdict.parsed is None for verdict in verdicts)
    text = (
        sum(not aside.call("apps.reward.math:equal", t.answer, t.answer)[0] for t in tasks)
        if verifier == "math"
        else "–"
    )
    return (
        f"| {name} | {split} | {len(tasks)} | {answers} ({answers / len(tasks):.1%}) | {right} ({right / len(tasks):.1%}) "
        f"| {unparsed} | {len(tasks) - right - unparsed} | {text} | {time.perf_counter() - began:.1f} |"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
