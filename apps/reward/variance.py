"""Which groups tell good from bad: those whose traces did not all end alike. The measure of dynamic sampling.

A group of one outcome has no advantage under any group baseline, so a batch of such tasks teaches nothing. DAPO (arXiv
2503.14476, section 3.2) samples on until its batch is full of others; here further waves of tasks are played, at most so
many as are wanted, in an order that is known beforehand: who is asked next never depends on who answered first.
"""

from __future__ import annotations

from collections.abc import Iterable

ROUNDING = 1e-9  # scores that differ by no more are equal


def varied(scores: Iterable[tuple[str, float]]) -> list[str]:
    """The tasks whose traces differ in score, in the order of their first trace; `scores` are (task's id, score) a trace."""
    found: dict[str, list[float]] = {}
    for task, score in scores:
        found.setdefault(task, []).append(score)
    return [task for task, given in found.items() if max(given) - min(given) > ROUNDING]


def wanting(groups: int, scores: Iterable[tuple[str, float]]) -> int:
    """How many of so many `groups` are still wanted."""
    return max(0, groups - len(varied(scores)))
