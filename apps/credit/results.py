"""What the credit stages write and read: credit a line a trace, and what came of a method's questions, a line a task."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path

from apps.records import (
    Consult,
    Credit,
    Finding,
    MeritError,
    Outcome,
    Question,
    Rate,
    Rated,
    Replay,
    Reward,
    Rewarded,
    Said,
)

CREDIT, REPLAYS = "credit.jsonl", "replays.jsonl"
KINDS = {"replay": (Replay, Outcome), "consult": (Consult, Said), "rate": (Rate, Rated), "reward": (Reward, Rewarded)}

Findings = Mapping[Question, Finding]  # all that was asked about one group, by whatever method


def write(folder: Path, credit: Sequence[Credit]) -> None:
    """MeritError where a value or an error is no number: what was not worked out is not written as if it were."""
    with open(folder / CREDIT, "w", encoding="utf-8") as file:
        for given in credit:
            if not all(map(isfinite, (*given.values, *given.errors, *given.agents.values()))):
                raise MeritError(
                    f"credit: trace {given.trace!r} is given the values {given.values} with the errors {given.errors}; "
                    "numbers were expected of the credit method"
                )
            file.write(json.dumps(dataclasses.asdict(given)) + "\n")


def read(folder: Path) -> list[Credit]:
    """The credit of a folder, in the order of its traces."""
    with open(folder / CREDIT, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    tuples = ("values", "errors", "notes")
    return [Credit(**{k: tuple(v) if k in tuples else v for k, v in row.items()}) for row in rows]


def write_replays(folder: Path, groups: Mapping[str, Findings]) -> None:
    """`groups`: what was found, by task's id."""
    with open(folder / REPLAYS, "w", encoding="utf-8") as file:
        for task, findings in groups.items():
            rows = [
                [_kind(asked), dataclasses.asdict(asked), dataclasses.asdict(came)] for asked, came in findings.items()
            ]
            file.write(json.dumps({"task": task, "findings": rows}) + "\n")


def read_replays(folder: Path) -> dict[str, Findings]:
    """What was found about each task's group, in the order in which it was asked."""
    found: dict[str, Findings] = {}
    with open(folder / REPLAYS, encoding="utf-8") as file:
        for row in map(json.loads, file):
            found[row["task"]] = {
                KINDS[kind][0](**_frozen(asked)): KINDS[kind][1](**_frozen(came))
                for kind, asked, came in row["findings"]
            }
    return found


def _kind(asked: Question) -> str:
    return next(name for name, (question, _) in KINDS.items() if isinstance(asked, question))


def _frozen(fields: dict) -> dict:
    """JSON's lists as the tuples that records hold."""
    return {
        k: tuple(tuple(i) if isinstance(i, list) else i for i in v) if isinstance(v, list) else v
        for k, v in fields.items()
    }
