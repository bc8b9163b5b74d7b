"""How well a reward model's scores tell good steps from bad: AUC and Brier score, with intervals that draw whole tasks.

AUC is the chance that a good step scores above a bad one, ties counting half (Mann & Whitney 1947). Brier's score is the
mean squared distance from the truth, 0 best; beside it stands that of somebody who always says the mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from apps.evaluation.statistics import percentiles, resampled

GRID = 1000  # scores are told apart to 1/GRID
DRAWS = 2000  # of the bootstrap over tasks


def figures(tasks: Sequence[str], scores: np.ndarray, truth: np.ndarray, threshold: float = 0.5) -> dict[str, Any]:
    """`scores` and `truth` (steps,) in [0, 1], and each step's task. A step is good where its truth is above `threshold`."""
    unit = np.unique(np.asarray(tasks), return_inverse=True)[1]
    base = (truth.mean() - truth) ** 2 if len(truth) else truth
    return {
        "steps": len(scores),
        "good": float((truth > threshold).mean()) if len(truth) else None,
        "auc": auc(unit, scores, truth > threshold),
        "brier": mean(unit, (scores - truth) ** 2),
        "brier_of_the_mean": mean(unit, base),
    }


def auc(unit: np.ndarray, scores: np.ndarray, good: np.ndarray) -> dict[str, float | None]:
    """With its 95 % interval; None where no step is good or none is bad."""
    places = np.unique(np.rint(scores * GRID), return_inverse=True)[1]
    counts = np.zeros((2, unit.max(initial=-1) + 1, places.max(initial=-1) + 1))
    np.add.at(counts, (good.astype(int), unit, places), 1)
    bad_good = np.hstack(counts)
    return _estimate(rank(bad_good.sum(axis=0)), rank(resampled(bad_good, draws=DRAWS)))


def rank(bad_good: np.ndarray) -> np.ndarray:
    """AUC from counts (…, 2 U): bad steps at each of U ascending scores, then good ones. NaN without both kinds."""
    bad, good = np.split(bad_good, 2, axis=-1)
    below = np.cumsum(bad, axis=-1) - bad / 2
    with np.errstate(invalid="ignore"):
        return (good * below).sum(axis=-1) / (good.sum(axis=-1) * bad.sum(axis=-1))


def mean(unit: np.ndarray, values: np.ndarray) -> dict[str, float | None]:
    """The mean over steps with its 95 % interval."""
    sums = np.zeros((unit.max(initial=-1) + 1, 2))
    np.add.at(sums, unit, np.stack([values, np.ones_like(values)], axis=-1))
    drawn = resampled(sums, draws=DRAWS)
    with np.errstate(invalid="ignore"):
        return _estimate(sums[:, 0].sum() / np.float64(sums[:, 1].sum()), drawn[:, 0] / drawn[:, 1])


def _estimate(value: float, drawn: np.ndarray) -> dict[str, float | None]:
    if not np.isfinite(value):
        return dict.fromkeys(("value", "low", "high"))
    interval = percentiles(drawn[np.isfinite(drawn)], 0.95)
    return {"value": float(value), "low": interval.low, "high": interval.high}
