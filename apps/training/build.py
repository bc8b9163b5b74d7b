"""The batch builder: from traces and credit to the rows that each agent is trained on.

Only what an agent itself said carries loss; a turn that a stand-in spoke is left out, so is one without an advantage.
A turn that several traces share (a tree) is one row, whose value is the mean over its traces.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from apps.records import Credit, MeritError, Trace, Turn, Valued
from apps.training.rows import Rows


def valued(traces: Sequence[Trace], credit: Sequence[Credit], outcomes: Sequence[float]) -> list[tuple[Turn, Valued]]:
    """Every turn that an agent spoke itself, with its value; shared turns once."""
    found: dict[int, list[tuple[Turn, Valued]]] = defaultdict(list)
    for trace, given, outcome in zip(traces, credit, outcomes, strict=True):
        if given.trace != trace.id or len(given.values) != len(trace.turns):
            raise MeritError(
                f"credit for {given.trace!r} with {len(given.values)} values meets the trace {trace.id!r} with "
                f"{len(trace.turns)} turns: a method returns one Credit a trace, in the group's order, one value a turn"
            )
        spoken: Counter[str] = Counter()
        for turn, value in zip(trace.turns, given.values, strict=True):
            row = Valued(trace.task, trace.id, turn.agent, spoken[turn.agent], turn.state, value, outcome)
            spoken[turn.agent] += 1
            if not turn.stand_in and len(turn.completion_ids):
                found[id(turn)].append((turn, row))
    return [_merged(shared) for shared in found.values()]


def _merged(shared: list[tuple[Turn, Valued]]) -> tuple[Turn, Valued]:
    turn, row = shared[0]
    value = float(np.mean([v.value for _, v in shared]))
    return turn, replace(row, value=value, outcome=float(np.mean([v.outcome for _, v in shared])))


def rows_of(
    agent: str,
    turns: Sequence[tuple[Turn, Valued]],
    advantages: Callable[[Sequence[Valued]], np.ndarray],
    needs: Iterable[str],
) -> Rows:
    """The rows of one agent, as far as its objective's needs go.

    `advantages` sees the turns of all agents, as some estimators compare agents. An objective that needs neither pairs nor
    advantages (SFT) is given the turns with a positive advantage: rejection sampling.
    """
    values = advantages([row for _, row in turns])
    mine = [(turn, row, a) for (turn, row), a in zip(turns, values, strict=True) if turn.agent == agent]
    if "pairs" in needs:
        kept = [(turn, 1.0) for pair in _pairs(mine) for turn in pair]
    elif "advantages" in needs:
        kept = [(turn, a) for turn, _, a in mine if np.isfinite(a) and a != 0]
    else:
        kept = [(turn, 1.0) for turn, _, a in mine if np.isfinite(a) and a > 0]
    return Rows(
        [turn.prompt_ids for turn, _ in kept],
        [turn.completion_ids for turn, _ in kept],
        [turn.logprobs for turn, _ in kept],
        np.array([a for _, a in kept], np.float64),
        kept[0][0].sampling.temperature or 1.0 if kept else 1.0,
        "pairs" in needs,
    )


def _pairs(mine: Sequence[tuple[Turn, Valued, float]]) -> list[tuple[Turn, Turn]]:
    """Preference pairs: of the turns in one state, the better half against the worse half, best with worst first.

    Ties make no pair, and no completion is preferred to itself.
    """
    states: dict[tuple[str, str], list[tuple[float, Turn]]] = defaultdict(list)
    for turn, row, _ in mine:
        states[row.task, row.state].append((row.value, turn))
    pairs = []
    for members in states.values():
        members.sort(key=lambda member: -member[0])
        for (high, winner), (low, loser) in zip(members[: len(members) // 2], reversed(members), strict=False):
            if high > low and not np.array_equal(winner.completion_ids, loser.completion_ids):
                pairs.append((winner, loser))
    return pairs
