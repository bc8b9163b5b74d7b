"""Figures over seeds: a mean and Student's interval, which is honest for as few runs as a study can afford.

The bootstrap of two to five values is far too narrow (it cannot leave their range), so it is not offered. The interval says how the
figure varies with the seed of the whole run; how it varies with the tasks is another question (statistics.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, pi, sin, sqrt, tan

import numpy as np

HALVINGS = 60  # of the angle; to the last bit of a double


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over seeds; without an interval where there is one seed, without a mean where there is none."""

    mean: float | None
    low: float | None
    high: float | None
    n: int  # seeds


def spread(values: Sequence[float | None], confidence: float = 0.95) -> Spread:
    """The mean over seeds with its interval, mean ± t(n − 1)·s/√n. None among the values is a run without the figure."""
    known = np.array([value for value in values if value is not None], np.float64)
    if len(known) < 2:
        return Spread(float(known[0]) if len(known) else None, None, None, len(known))
    half = quantile(len(known) - 1, confidence) * float(known.std(ddof=1)) / sqrt(len(known))
    return Spread(float(known.mean()), float(known.mean()) - half, float(known.mean()) + half, len(known))


def quantile(freedom: int, confidence: float) -> float:
    """t with `confidence` of Student's distribution within ±t, for whole degrees of freedom from 1."""
    low, high = 0.0, pi / 2
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if within(middle, freedom) < confidence else (low, middle)
    return sqrt(freedom) * tan((low + high) / 2)


def within(angle: float, freedom: int) -> float:
    """P(|T| ≤ √freedom·tan(angle)), in closed form (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4)."""
    term = total = cos(angle) if freedom % 2 else 1.0
    for k in range(freedom % 2 + 2, freedom - 1, 2):
        term *= cos(angle) ** 2 * (k - 1) / k
        total += term
    if freedom % 2 == 0:
        return sin(angle) * total
    return 2 / pi * (angle + (sin(angle) * total if freedom > 1 else 0.0))
