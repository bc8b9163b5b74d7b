"""What the stage `planted` writes and `fidelity` reads: a line of JSON a trace."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from apps.fidelity import measures

FILE = "rows.jsonl"


def write(folder: Path, rows: Sequence[measures.Played]) -> None:
    with open(folder / FILE, "w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(dataclasses.asdict(row)) + "\n")


def read(folder: Path) -> list[measures.Played]:
    """The rows of a folder."""
    with open(folder / FILE, encoding="utf-8") as file:
        found = [json.loads(line) for line in file]
    return [
        measures.Played(
            **{
                **row,
                "speakers": tuple(row["speakers"]),
                "truth": tuple(row["truth"]),
                "struck": {int(turn): kind for turn, kind in row["struck"].items()},
                "methods": {
                    name: measures.Judged(**{**judged, "values": tuple(judged["values"])})
                    for name, judged in row["methods"].items()
                },
            }
        )
        for row in found
    ]
