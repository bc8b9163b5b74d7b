"""How far labels agree with those of a set that is trusted: agreement, Cohen's kappa, and whether the order decided.

Kappa is agreement beyond chance, (p_o − p_e)/(1 − p_e), with p_e what two labellers with these habits agree in by chance
(Cohen 1960); 0 is chance, 1 perfect. People agreed with each other in 72.6 % of InstructGPT's pairs (arXiv 2203.02155, section
3.4), and a judge can hardly do better than those whom it is checked against. Intervals draw whole prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from apps.evaluation.statistics import percentiles, resampled

DRAWS = 2000


def figures(
    units: Sequence[str], said: np.ndarray, truth: np.ndarray, orders: np.ndarray | None = None
) -> dict[str, Any]:
    """`said` and `truth` (pairs,): how likely the first is the better one; `orders` (pairs, 2): as said in each order.

    A preference of exactly .5 agrees by half.
    """
    table = np.stack([votes(said)[:, i] * votes(truth)[:, j] for i in (0, 1) for j in (0, 1)], axis=1)
    found = {
        "pairs": len(said),
        "agreement": estimate(units, table, lambda t: (t[..., 0] + t[..., 3]) / t.sum(axis=-1)),
        "kappa": estimate(units, table, kappa),
    }
    if orders is not None and len(orders):
        same = ((orders[:, 0] > 0.5) == (orders[:, 1] > 0.5)).astype(float)
        columns = np.stack([same, np.ones_like(same), orders[:, 0], 1 - orders[:, 1]], axis=1)
        found["same_in_both_orders"] = estimate(units, columns, lambda t: t[..., 0] / t[..., 1])
        found["prefers_the_first_place"] = estimate(units, columns, lambda t: (t[..., 2] + t[..., 3]) / (2 * t[..., 1]))
    return found


def votes(preferred: np.ndarray) -> np.ndarray:
    """(pairs, 2): for the first, for the second."""
    first = np.where(preferred > 0.5, 1.0, np.where(preferred < 0.5, 0.0, 0.5))
    return np.stack([first, 1 - first], axis=1)


def kappa(table: np.ndarray) -> np.ndarray:
    """From counts (…, 4): both the first, I the first and they the second, I the second and they the first, both the second."""
    total = table.sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        observed = (table[..., 0] + table[..., 3]) / total
        mine, theirs = (table[..., 0] + table[..., 1]) / total, (table[..., 0] + table[..., 2]) / total
        chance = mine * theirs + (1 - mine) * (1 - theirs)
        return (observed - chance) / (1 - chance)


def estimate(units: Sequence[str], columns: np.ndarray, figure) -> dict[str, float | None]:
    """A figure of summed columns with its 95 % interval over units; None where there is nothing to measure."""
    unit = np.unique(np.asarray(units), return_inverse=True)[1]
    sums = np.zeros((unit.max(initial=-1) + 1, columns.shape[1]))
    np.add.at(sums, unit, columns)
    with np.errstate(invalid="ignore", divide="ignore"):
        value = float(figure(sums.sum(axis=0)))
        drawn = figure(resampled(sums, draws=DRAWS)) if len(sums) else np.zeros(0)
    drawn = drawn[np.isfinite(drawn)]
    if not np.isfinite(value) or not len(drawn):
        return dict.fromkeys(("value", "low", "high"))
    interval = percentiles(drawn, 0.95)
    return {"value": value, "low": interval.low, "high": interval.high}
