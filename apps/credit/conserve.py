"""Brings values to a wanted sum without leaving their bounds, changing them as little as possible. Not a method.

The Euclidean projection of raw values onto {v : Σv = target, |v| ≤ 1}. It is clip(raw + s, −1, 1) for one shift s (the
multiplier of the sum); Σ clip(raw + s) rises with s and is piecewise linear, so s lies between two of its 2T kinks.
The order of the values is kept. Feasible if and only if |target| ≤ T.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

BOUND = 1.0  # of the absolute value of a turn


def project(raw: Sequence[float] | np.ndarray, target: float) -> np.ndarray:
    """The nearest values (T,) to `raw` (T,) whose sum is `target` and none of which exceeds the bound.

    ValueError where no values have that sum.
    """
    raw = np.asarray(raw, dtype=np.float64)
    if abs(target) > BOUND * len(raw) + 1e-9:
        raise ValueError(f"{len(raw)} values within ±{BOUND:g} cannot sum to {target:g}")
    return np.clip(raw + _shift(raw, target), -BOUND, BOUND) if len(raw) else raw


def _shift(raw: np.ndarray, target: float) -> float:
    """s with Σ clip(raw + s) = target: linear between the kinks, at which a value reaches a bound."""
    kinks = np.sort(np.concatenate([-BOUND - raw, BOUND - raw]))
    sums = np.clip(raw + kinks[:, None], -BOUND, BOUND).sum(axis=1)
    return float(np.interp(target, sums, kinks))
