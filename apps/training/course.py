"""Where rows stand in a longer course of training that several tasks share: the schedule of the rate spans all of them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from apps.training.options import Options
from apps.training.steps import scale_at

FILE = "course.json"


@dataclass(frozen=True, slots=True)
class Course:
    """A stretch of a course; without one, a task's rows are all there is."""

    step: int = 0  # steps before these rows
    steps: int = 0  # of the whole course; 0: as many as these rows make
    rate: float = 1.0  # factor of the rate, lowered where the course had to go back

    def scale(self, step: int, total: int, options: Options) -> float:
        """The share of the peak rate at a step (from 0) of `total` on these rows."""
        return self.rate * scale_at(self.step + step, self.steps or total, options)

    def save(self, folder: Path) -> None:
        (folder / FILE).write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")


WHOLE = Course()


def read(folder: Path) -> Course:
    """The course beside rows, or the whole of it."""
    file = folder / FILE
    return Course(**json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else WHOLE
