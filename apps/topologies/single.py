"""One agent answers alone: the baseline of every team."""

from __future__ import annotations

from apps import records
from apps.effects import Answer, Ask, Playing
from apps.records import Task

DUTIES = {"solver": "solve"}
ROLES = tuple(DUTIES)
PROMPTS = {"solver": "Solve: {question}"}


class Options(records.Options):
    """Nothing to choose."""


def play(task: Task, options: Options) -> Playing:
    answer = yield Ask("solver", {"question": task.question})
    return Answer(answer)
