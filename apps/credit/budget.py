"""What replays may cost in a training run, and what a task gets that is not replayed. Not a method."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from apps import records
from apps.records import Credit, Group, MeritError


class Budget(records.Options):
    """Which tasks are replayed, and for how long; the options that every method that replays has."""

    share: float = Field(1.0, ge=0, le=1, description="share of tasks replayed; the others get score - group mean")
    rounds: int = Field(0, ge=0, description="replay only in the first so many rounds, 0 = in all; the DAG reads it")


def chosen(task: str, share: float) -> bool:
    """Whether a task is replayed: by digest of its id, so never by order or by what else is in the run."""
    return int(records.digest(["replayed", task])[:8], 16) < share * 2**32


def centred(group: Group, scores: Sequence[float], team: Sequence[str]) -> list[Credit]:
    """For a task outside the share: every turn gets score − group mean, as `uniform` would under a group baseline."""
    if len(scores) < 2:
        raise MeritError(
            f"credit: task {group.task.id!r} is outside credit.share and has a single trace, so there is no mean to "
            "compare it with; play each task more than once or set credit.share=1 and credit.rounds=0"
        )
    note = ("not replayed (outside the share): the score less the group's mean",)
    mean, found = float(np.mean(scores)), []
    for graded, score in zip(group.graded, scores, strict=True):
        turns, value = len(graded.trace.turns), score - mean
        found.append(Credit(graded.trace.id, (value,) * turns, (0.0,) * turns, dict.fromkeys(team, value), {}, note))
    return found
