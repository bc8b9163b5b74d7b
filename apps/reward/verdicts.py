"""What grading writes and reads: a line of JSON for each trace, in the order of the traces; and what a refill decided."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from apps.records import Graded, MeritError, Trace, Verdict

ANSWERING = ("solve", "revise", "report")  # duties whose turns carry an answer
FILE, REFILL = "verdicts.jsonl", "refill.json"


def write(folder: Path, graded: Sequence[Graded]) -> None:
    with open(folder / FILE, "w", encoding="utf-8") as file:
        for g in graded:
            turns = [v and dataclasses.asdict(v) for v in g.turn_verdicts]
            row = {"trace": g.trace.id, "verdict": dataclasses.asdict(g.verdict), "turns": turns}
            file.write(json.dumps(row) + "\n")


def read(folder: Path, traces: Sequence[Trace]) -> list[Graded]:
    """The verdicts of a folder, joined to their traces."""
    with open(folder / FILE, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    if [row["trace"] for row in rows] != [trace.id for trace in traces]:
        raise MeritError(f"{folder}: its {len(rows)} verdicts are not those of the {len(traces)} traces given")
    return [
        Graded(trace, Verdict(**row["verdict"]), tuple(v and Verdict(**v) for v in row["turns"]))
        for trace, row in zip(traces, rows, strict=True)
    ]


def write_refill(folder: Path, facts: Mapping[str, int]) -> None:
    """`facts["wanted"]`: how many tasks the next wave is to play."""
    (folder / REFILL).write_text(json.dumps(facts) + "\n", encoding="utf-8")


def wanted(folder: Path) -> int:
    """How many tasks a wave is to play."""
    return json.loads((folder / REFILL).read_text(encoding="utf-8"))["wanted"]
