"""Two teams on the same tasks: every figure that has data of each task, with a paired test.

Team and solver accuracy are tested as everywhere (statistics.py: exact sign flips). The other figures are shares over turns, how many of how many
in each task; where both teams are alike, a task's counts might as well be the other's, so the labels are swapped task by task at random.
With one observation a task that is the sign-flip test. Intervals draw whole tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from apps.evaluation import figures, statistics
from apps.evaluation.figures import PART, Name
from apps.records import Graded

TESTED = {("accuracy",): "score", ("single",): "draft"}  # by statistics.paired


@dataclass(frozen=True, slots=True)
class Row:
    """A figure of both, second less first."""

    name: Name
    first: float
    second: float
    difference: float
    low: float  # 95 % interval of the difference
    high: float
    p: float  # two-sided
    holm: float = 1.0  # p, corrected for all figures of the table (Holm 1979)


def compared(
    first: Mapping[str, Sequence[Graded]], second: Mapping[str, Sequence[Graded]], duties: Mapping[str, str]
) -> list[Row]:
    """All figures that both have, from the plays of each task. `duties`: of the roles that both teams have."""
    tasks = sorted(first)
    ks = [k for k in figures.KS[1:] if k <= min(len(plays) for by in (first, second) for plays in by.values())]
    counts = [[figures.counts(by[task], duties, ks) for task in tasks] for by in (first, second)]
    names = list(counts[0][0])
    tables = [np.array([[task[name] for name in names] for task in of], np.float64) for of in counts]
    wanted = {name: {name: 1.0} for name in names if name[0] != PART} | figures.sums(duties)
    weights = np.array([[parts.get(name, 0.0) for name in names] for parts in wanted.values()])
    rows = swapped(list(wanted), *tables, weights)
    exact = {name: _exact(name, [[by[task] for task in tasks] for by in (first, second)]) for name in TESTED}
    rows = [exact.get(row.name, row) for row in rows if np.isfinite(row.difference)]
    return corrected(rows)


def swapped(names: Sequence[Name], first: np.ndarray, second: np.ndarray, weights: np.ndarray) -> list[Row]:
    """Figures Σ w·share of both, (tasks, shares, 2) counts each; weights (figures, shares)."""
    shares = [_shares(table.sum(axis=0)) for table in (first, second)]
    values = [_weighted(share, weights) for share in shares]
    drawn = statistics.resampled(np.hstack([_flat(first), _flat(second)]))
    apart = values[1] - values[0]
    differences = np.where(
        np.isfinite(apart), _difference(drawn, weights), 0.0
    )  # a figure that one has not is dropped later
    low, high = np.nanquantile(differences, [0.025, 0.975], axis=0)
    p = _swaps(first, second, weights, apart)
    found = zip(names, *values, apart, low, high, p, strict=True)
    return [Row(name, *map(float, numbers)) for name, *numbers in found]


def corrected(rows: Sequence[Row]) -> list[Row]:
    """Holm's step-down correction: the k-th smallest of m p values times m − k + 1, never less than one before it."""
    order = sorted(range(len(rows)), key=lambda i: rows[i].p)
    holm, least = [1.0] * len(rows), 0.0
    for k, i in enumerate(order):
        least = max(least, min(1.0, rows[i].p * (len(rows) - k)))
        holm[i] = least
    values = [(r.name, r.first, r.second, r.difference, r.low, r.high, r.p) for r in rows]
    return [Row(*given, p) for given, p in zip(values, holm, strict=True)]


def _exact(name: Name, plays: Sequence[Sequence[Sequence[Graded]]]) -> Row:
    """By task and sample; all plays of a task count alike."""
    score = figures.draft if TESTED[name] == "draft" else (lambda g: g.verdict.score)
    scores = [np.array([[score(g) for g in task] for task in of], np.float64) for of in plays]
    test = statistics.paired(*scores)
    return Row(name, *(float(s.mean()) for s in scores), test.difference, test.low, test.high, test.p)


def _swaps(first: np.ndarray, second: np.ndarray, weights: np.ndarray, apart: np.ndarray) -> np.ndarray:
    """Two-sided p, (figures,): how often labels swapped at random set the two as far apart; what was seen is one draw."""
    rng, beyond = np.random.default_rng(0), np.ones(len(apart))
    a, b = _flat(first), _flat(second)
    for start in range(0, statistics.DRAWS, statistics.BLOCK):
        size = min(statistics.BLOCK, statistics.DRAWS - start)
        moved = rng.integers(0, 2, (size, len(a))) @ (b - a)
        drawn = np.abs(_difference(np.hstack([a.sum(axis=0) + moved, b.sum(axis=0) - moved]), weights))
        beyond += (~(drawn < np.abs(apart) - 1e-9)).sum(axis=0)  # a draw without data counts against the difference
    return beyond / (statistics.DRAWS + 1)


def _difference(drawn: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(draws, 2 · 2 · shares) sums of both teams to (draws, figures)."""
    first, second = (part.reshape(len(drawn), -1, 2) for part in np.split(drawn, 2, axis=1))
    return _weighted(_shares(second), weights) - _weighted(_shares(first), weights)


def _flat(table: np.ndarray) -> np.ndarray:
    return table.reshape(len(table), -1)


def _shares(sums: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return sums[..., 0] / sums[..., 1]


def _weighted(shares: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Σ w·share over the last axis; a share without data spoils just the figures that use it."""
    parts = np.where(weights != 0, weights * shares[..., None, :], 0.0)
    return parts.sum(axis=-1)
