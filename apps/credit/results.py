"""What the credit stages write and read: credit a line a trace, and the replays that it rests on a line a group."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from apps.records import Credit, Outcome, Replay

CREDIT, REPLAYS = "credit.jsonl", "replays.jsonl"

Wave = tuple[list[Replay], list[Outcome]]  # what a method asked for at once, and what came of it


def write(folder: Path, credit: Sequence[Credit]) -> None:
    with open(folder / CREDIT, "w", encoding="utf-8") as file:
        for given in credit:
            file.write(json.dumps(dataclasses.asdict(given)) + "\n")


def read(folder: Path) -> list[Credit]:
    """The credit of a folder, in the order of its traces."""
    with open(folder / CREDIT, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    tuples = ("values", "errors", "notes")
    return [Credit(**{k: tuple(v) if k in tuples else v for k, v in row.items()}) for row in rows]


def write_replays(folder: Path, groups: Sequence[tuple[str, Sequence[Wave]]]) -> None:
    """`groups`: a task's id and its waves."""
    with open(folder / REPLAYS, "w", encoding="utf-8") as file:
        for task, waves in groups:
            asked = [[dataclasses.asdict(r) for r in replays] for replays, _ in waves]
            came = [[dataclasses.asdict(o) for o in outcomes] for _, outcomes in waves]
            file.write(json.dumps({"task": task, "asked": asked, "came": came}) + "\n")


def read_replays(folder: Path) -> dict[str, list[Wave]]:
    """The waves of each task."""
    found = {}
    with open(folder / REPLAYS, encoding="utf-8") as file:
        for row in map(json.loads, file):
            asked = [[Replay(**{**r, "absent": tuple(map(tuple, r["absent"]))}) for r in wave] for wave in row["asked"]]
            found[row["task"]] = list(zip(asked, [[Outcome(**o) for o in wave] for wave in row["came"]], strict=True))
    return found
