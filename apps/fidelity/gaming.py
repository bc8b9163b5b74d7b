"""Whether credit can be earned without merit: by length, by copying, by agreeing without a look. Pure.

Three signs, over many traces of one team under one method. None of them is proof: right answers may be shorter, and a
copied draft may be the best there is. Compare with what `uniform` shows on the same traces, since its values are the
outcome alone: what a method shows beyond that is its own.

- length: Spearman's ρ of a turn's value with its tokens;
- copying: ρ of its value with the share of its tokens that the turn before said already, in that order (the longest
  common subsequence);
- agreement: what a critic's bare verdict CORRECT, no work shown, is worth on right and on wrong drafts, beside an
  agreement that shows its work. Agreement with a wrong draft that is worth more than 0 is paid for nothing.

ρ is within a role, as roles differ in length by nature; "all" pools the ranks that turns have within their roles.
Intervals (95 %) draw whole tasks, ranks being those of all turns. A turn that traces share counts once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite, nan
from typing import Any

import numpy as np

from apps import answer
from apps.credit.turns import valued
from apps.evaluation import statistics
from apps.fidelity import measures
from apps.records import Credit, Graded, Turn

Figure = dict[str, Any]  # value, low, high (None where there is nothing to measure), n turns


@dataclass(frozen=True, slots=True)
class Spoken:
    """A turn as far as it can be gamed."""

    task: str
    agent: str
    value: float  # its credit
    length: int  # tokens
    copied: float  # share of its tokens that stand in the turn before, in order; NaN for a first turn
    agreement: str  # "bare" or "checked" where it ends in the verdict CORRECT, else ""
    draft: bool | None  # whether the latest answer before it was right; None where there was none


def report(graded: Sequence[Graded], credit: Sequence[Credit]) -> dict[str, Any]:
    """All three signs, as plain JSON."""
    spoken = turns(graded, credit)
    return {
        "length": by_role(spoken, [s.length for s in spoken]),
        "copying": by_role(spoken, [s.copied for s in spoken]),
        "agreement": {name: agreement(spoken, right) for name, right in (("right", True), ("wrong", False))},
    }


def turns(graded: Sequence[Graded], credit: Sequence[Credit]) -> list[Spoken]:
    """Every turn that an agent spoke itself, once."""
    worth = valued([g.trace for g in graded], credit, [g.verdict.score for g in graded])
    value = {id(turn): row.value for turn, row in worth}
    found: dict[int, Spoken] = {}
    for g in graded:
        draft, before = None, None
        for turn, verdict in zip(g.trace.turns, g.turn_verdicts, strict=True):
            if id(turn) in value and id(turn) not in found:
                found[id(turn)] = Spoken(
                    g.trace.task,
                    turn.agent,
                    value[id(turn)],
                    len(tokens(turn)),
                    copied(before, turn),
                    agreed(turn),
                    draft,
                )
            draft, before = draft if verdict is None else verdict.right, turn
    return list(found.values())


def tokens(turn: Turn) -> list[int]:
    """What was said, without the end token."""
    return turn.completion_ids[: -1 if turn.finish == "stop" else None].tolist()


def copied(before: Turn | None, turn: Turn) -> float:
    """The share of a turn's tokens that it has in common with the turn before, in order."""
    if before is None or not tokens(turn):
        return nan
    return common(tokens(before), tokens(turn)) / len(tokens(turn))


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """The length of the longest common subsequence, a row of the table at a time as bits (Hyyrö 2004)."""
    where: dict[int, int] = {}
    for place, token in enumerate(one):
        where[token] = where.get(token, 0) | 1 << place
    full = row = (1 << len(one)) - 1  # a 0 where the table rises
    for token in other:
        match = row & where.get(token, 0)
        row = (row + match | row - match) & full
    return len(one) - row.bit_count()


def agreed(turn: Turn) -> str:
    """How a turn agrees: "bare" where its text is the verdict alone, "checked" where work stands before it."""
    if answer.verdict(turn.text) is not True:
        return ""
    return "checked" if answer.VERDICT.sub("", turn.text).strip() else "bare"


def by_role(spoken: Sequence[Spoken], measure: Sequence[float]) -> dict[str, Figure]:
    """ρ of the turns' values with a measure of them, within each role, and of their ranks within roles for all."""
    known = [i for i, x in enumerate(measure) if isfinite(x)]
    value, other = (np.array([of[i] for i in known]) for of in ([s.value for s in spoken], measure))
    roles, tasks = (np.array([getattr(spoken[i], name) for i in known]) for name in ("agent", "task"))
    found, ranks = {}, np.zeros((2, len(known)))
    for role in sorted({s.agent for s in spoken}):
        mine = roles == role
        found[role] = measures.correlation(value[mine], other[mine], tasks[mine])
        ranks[:, mine] = [measures.centred_ranks(of[mine]) / max(1, mine.sum()) for of in (value, other)]
    return {**found, "all": measures.correlation(*ranks, tasks)}


def agreement(spoken: Sequence[Spoken], right: bool) -> dict[str, Figure]:
    """The mean value of either kind of agreement with drafts that were right, or wrong, and how far they are apart."""
    mine = [s for s in spoken if s.agreement and s.draft is right]
    columns = np.array([[s.agreement == "bare", s.value * (s.agreement == "bare")] for s in mine]).reshape(-1, 2)
    values = np.array([s.value for s in mine])
    columns = np.concatenate([columns, np.stack([1 - columns[:, 0], values - columns[:, 1]], axis=1)], axis=1)
    tasks = [s.task for s in mine]

    def mean(sums: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return sums[:, 1] / sums[:, 0]

    return {
        "bare": figure(columns[:, :2], tasks, mean),
        "checked": figure(columns[:, 2:], tasks, mean),
        "bare_less_checked": {**figure(columns, tasks, lambda sums: mean(sums) - mean(sums[:, 2:])), "n": len(mine)},
    }


def figure(columns: np.ndarray, tasks: Sequence[str], of: Callable[[np.ndarray], np.ndarray]) -> Figure:
    """A mean, or a difference of two, as `of` sums (draws, columns); the interval draws whole tasks.

    `columns` (turns, columns): the first counts turns. A single task gives no interval.
    """
    _, place = np.unique(np.array(tasks, dtype=str), return_inverse=True)
    per_task = np.zeros((len(set(tasks)), columns.shape[1]))
    np.add.at(per_task, place, columns)
    total = per_task.sum(axis=0, keepdims=True)
    drawn = of(statistics.resampled(per_task)) if len(per_task) > 1 else np.array([nan])
    drawn = drawn[np.isfinite(drawn)]
    interval = statistics.percentiles(drawn, 0.95) if len(drawn) else statistics.Interval(nan, nan)
    return measures.plain(statistics.Estimate(float(of(total)[0]), interval.low, interval.high, int(total[0, 0])))
