"""The stage `tasks`: loads a split of a family, checks every gold answer, writes `tasks.jsonl`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from apps import leaf
from apps.records import MeritError, Task

FILE = "tasks.jsonl"


def tasks(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """Writes the split; a gold answer that its verifier cannot parse is an error here, never a 0 or a 1 later."""
    family = leaf.find("tasks", options["tasks"]["name"])
    loaded = family.load(options["split"], leaf.options("tasks", options["tasks"]))
    if not loaded:
        raise MeritError(f"tasks.name={options['tasks']['name']}: the split {options['split']!r} is empty")
    verifier = leaf.find("reward", options["verifier"]["name"])
    chosen = leaf.options("reward", options["verifier"])
    for task in loaded:
        verifier.check_gold(task, chosen)
    with open(out / FILE, "w", encoding="utf-8") as file:
        for task in loaded:
            file.write(json.dumps(dataclasses.asdict(task)) + "\n")
    return {"tasks": len(loaded)}


def read(folder: Path) -> list[Task]:
    """The tasks of a folder that the stage wrote."""
    with open(folder / FILE, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [Task(**{**row, "choices": tuple(row["choices"])}) for row in rows]


def take(tasks: Sequence[Task], seed: str, start: int, count: int, window: int = 0) -> list[Task]:
    """`count` tasks from place `start` on, of an endless row of shuffles; fewer where a window is larger than the split.

    A window (a round, an evaluation) never holds a task twice: places are counted in whole windows of a shuffle, and what
    is left over at a shuffle's end is skipped.
    """
    from apps.inference.driver import seed_of

    window = window or count
    length = max(1, len(tasks) // window) * window  # places of one shuffle that are used
    chosen = []
    for place in range(start, start + count):
        shuffle, index = divmod(place, length)
        if index < len(tasks):
            order = np.random.default_rng(seed_of(seed, shuffle)).permutation(len(tasks))
            chosen.append(tasks[order[index]])
    return chosen
