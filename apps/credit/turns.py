"""The turns that agents spoke themselves, with what they are worth. Not a method: what training and data sets share.

A turn that a stand-in spoke belongs to nobody, and an empty one has nothing to learn from. A turn that several traces
share (a tree) is one, and its value is the mean over its traces.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from apps.records import Credit, MeritError, Trace, Turn, Valued

ROUNDING = 1e-9  # values that differ by no more are equal: sums of Shapley weights leave such dust

Worth = tuple[Turn, Valued]


def valued(traces: Sequence[Trace], credit: Sequence[Credit], outcomes: Sequence[float]) -> list[Worth]:
    """Every turn that an agent spoke itself, with its value; shared turns once."""
    found: dict[int, list[Worth]] = defaultdict(list)
    for trace, given, outcome in zip(traces, credit, outcomes, strict=True):
        if given.trace != trace.id or not len(given.values) == len(given.errors) == len(trace.turns):
            raise MeritError(
                f"credit for {given.trace!r} with {len(given.values)} values meets the trace {trace.id!r} with "
                f"{len(trace.turns)} turns: a method returns one Credit a trace, in the group's order, one value and "
                "one error a turn"
            )
        spoken: Counter[str] = Counter()
        for turn, value, error in zip(trace.turns, given.values, given.errors, strict=True):
            row = Valued(trace.task, trace.id, turn.agent, spoken[turn.agent], turn.state, value, outcome, error)
            spoken[turn.agent] += 1
            if not turn.stand_in and len(turn.completion_ids):
                found[id(turn)].append((turn, row))
    return [_merged(shared) for shared in found.values()]


def pairs(turns: Sequence[Worth], margin: float = 0.0) -> list[tuple[Worth, Worth]]:
    """Preference pairs (better, worse) of one agent's turns: of those in one state, the best with the worst first.

    Ties make no pair, and no completion is preferred to itself.
    """
    states: dict[tuple[str, str], list[Worth]] = defaultdict(list)
    for turn, row in turns:
        states[row.task, row.state].append((turn, row))
    return [
        (members[better], members[worse])
        for members in states.values()
        for better, worse in best_against_worst([row.value for _, row in members], margin)
        if not _same(members[better][0], members[worse][0])
    ]


def best_against_worst(values: Sequence[float], margin: float = 0.0) -> list[tuple[int, int]]:
    """The better half against the worse half, best with worst first, as places (better, worse); ties make no pair.

    Each place is used once, so no value weighs more than another; of an odd number the middle one has no partner.
    """
    order = sorted(range(len(values)), key=lambda place: -values[place])
    matched = zip(order[: len(order) // 2], reversed(order), strict=False)
    least = max(margin - ROUNDING, ROUNDING)
    return [(better, worse) for better, worse in matched if values[better] - values[worse] > least]


def _same(one: Turn, other: Turn) -> bool:
    """Whether two turns said the same; a turn of which just the text is kept has no tokens."""
    return one.text == other.text and np.array_equal(one.completion_ids, other.completion_ids)


def _merged(shared: list[Worth]) -> Worth:
    """One turn of several traces. Their errors are not independent, so that of the mean is bounded by their mean."""
    turn, row = shared[0]
    means = {name: float(np.mean([getattr(v, name) for _, v in shared])) for name in ("value", "outcome", "error")}
    return turn, replace(row, **means)
