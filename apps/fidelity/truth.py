"""What each turn was worth, by replay at a high repeat count: the yardstick, too dear for training.

The value of a prefix is the team's mean score when everything after it is sampled anew; a turn is worth what the prefix
with it is worth more than the prefix without it (the whole trace is worth its own score). A credit method like any
other, so that it can be driven and recorded by the same stages, but named by its module: it is no rival of those that it
judges. Its random numbers are its own: repeats from FIRST on, which no method reaches.
"""

from __future__ import annotations

from collections.abc import Generator

import numpy as np
from pydantic import Field

from apps import records
from apps.credit import groups
from apps.records import Credit, Graded, Group, Outcome, Replay

FIRST = 1_000_000  # number of the first repeat


class Options(records.Options):
    """How sure it is."""

    repeats: int = Field(64, ge=2, description="continuations of each prefix")


def asks(options: Options) -> bool:
    return True


def assign(group: Group, options: Options) -> Generator[list[Replay], list[Outcome], list[Credit]]:
    """Prefixes that traces share are continued once."""
    groups.scores(group)
    prefixes: dict[tuple[str, ...], tuple[int, int]] = {}
    for i, graded in enumerate(group.graded):
        for keep in range(len(graded.trace.turns)):
            prefixes.setdefault(_said(graded, keep), (i, keep))
    repeats = range(FIRST, FIRST + options.repeats)
    outcomes = yield [Replay(i, (), r, keep, "rest") for i, keep in prefixes.values() for r in repeats]
    scores = np.array([outcome.score for outcome in outcomes]).reshape(-1, options.repeats)
    values = {said: (float(row.mean()), _error(row)) for said, row in zip(prefixes, scores, strict=True)}
    return [_credit(graded, values, groups.agents(group)) for graded in group.graded]


def _said(graded: Graded, keep: int) -> tuple[str, ...]:
    """What tells a prefix from others: who said what."""
    return tuple(part for turn in graded.trace.turns[:keep] for part in (turn.path, turn.text))


def _error(scores: np.ndarray) -> float:
    return float(scores.std(ddof=1) / np.sqrt(len(scores)))


def _credit(graded: Graded, values: dict[tuple[str, ...], tuple[float, float]], team: tuple[str, ...]) -> Credit:
    turns = graded.trace.turns
    along = [*(values[_said(graded, keep)] for keep in range(len(turns))), (graded.verdict.score, 0.0)]
    worth = tuple(after[0] - before[0] for before, after in zip(along, along[1:], strict=False))
    errors = tuple(float(np.hypot(before[1], after[1])) for before, after in zip(along, along[1:], strict=False))
    agents = dict.fromkeys(team, 0.0)
    for turn, value in zip(turns, worth, strict=True):
        agents[turn.agent] += value
    return Credit(graded.trace.id, worth, errors, agents)
