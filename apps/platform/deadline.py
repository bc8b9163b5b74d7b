"""The end of the batch job that a task is carried out in: a task that cannot be through by then is not begun.

A task is told `until`, when all that works has to have ended; `usual_s`, the longest that tasks of its stage have taken, as far
as the driver knows; and `margin_s`, what to reckon with where nobody knows. What this process has seen itself counts too. No
more is reckoned with than `most_s`, half of the job's time: what does not fit into a new job either can but be tried. A task
that saves its work as it goes (`partial`) is begun however long it takes: what it does is not lost.

Not here: that a task at work is told to save and end (processes.py), and what becomes of the run (workflows/driver/deadline.py).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from apps.records import MeritError

_longest: dict[str, float] = {}  # stage -> seconds that the longest of its tasks took, of those in this process


class TooLate(MeritError):
    """No fault: the job ends before the task would. The next job begins it, or goes on with what it has saved."""


@contextmanager
def within(stage: str, machine: Mapping[str, Any]) -> Iterator[None]:
    """Around a task. TooLate where there is no time for it, and in place of whatever ends it after its time was up."""
    until, begun = machine.get("until"), time.time()
    if until is not None and begun + _takes(stage, machine) > until:
        raise TooLate(f"the job ends before this task of {stage} would")
    try:
        yield
    except Exception as error:
        if until is not None and time.time() >= until and not isinstance(error, TooLate):
            raise TooLate(f"the job's time was up before this task of {stage} was done") from error
        raise
    _longest[stage] = max(_longest.get(stage, 0.0), time.time() - begun)


def _takes(stage: str, machine: Mapping[str, Any]) -> float:
    """Seconds that have to be left for it."""
    if machine.get("partial"):
        return 0.0
    known = [seconds for seconds in (_longest.get(stage), machine.get("usual_s")) if seconds is not None]
    return min(max(known) if known else machine["margin_s"], machine["most_s"])
