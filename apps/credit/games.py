"""Cooperative games on small tables: Shapley values, their variance and the efficiency residual.

Not a credit method: pure formulas. A game of n players is an array whose last axis has 2**n entries; entry `mask` is
the value v(S) of the coalition whose members are the set bits of `mask` (bit i = player i). Leading axes are
independent games. Source: Shapley (1953), φ_i = Σ_{S⊆N∖i} |S|!(n−|S|−1)!/n! · [v(S∪i) − v(S)].
"""

from __future__ import annotations

from functools import cache
from math import factorial

import numpy as np

LARGEST = 16  # players; beyond it the table itself is the trouble


def players(values: np.ndarray) -> int:
    """n of a table (..., 2**n). ValueError where the last axis is no power of two."""
    size = np.shape(values)[-1]
    if size < 1 or size & (size - 1) or size > 2**LARGEST:
        raise ValueError(f"a game has 2**n values, n ≤ {LARGEST}; the last axis of {np.shape(values)} has {size}")
    return size.bit_length() - 1


@cache
def coefficients(n: int) -> np.ndarray:
    """The Shapley value as a matrix (2**n, n): φ = v @ coefficients.

    v(S) counts (|S|−1)!(n−|S|)!/n! for the members of S, and −|S|!(n−|S|−1)!/n! for the others.
    """
    masks = np.arange(2**n)
    member = (masks[:, None] >> np.arange(n)) & 1 == 1
    weight = np.array([factorial(s) * factorial(n - s - 1) / factorial(n) for s in range(n)] + [0.0])
    size = member.sum(axis=1)
    matrix = np.where(member, weight[size - 1][:, None], -weight[size][:, None])
    matrix.flags.writeable = False  # it is cached
    return matrix


def shapley(values: np.ndarray) -> np.ndarray:
    """φ (..., n) of each player in each game (..., 2**n)."""
    return np.asarray(values, dtype=np.float64) @ coefficients(players(values))


def shapley_variance(variances: np.ndarray) -> np.ndarray:
    """Variance (..., n) of φ when every v(S) is an independent estimate of variance (..., 2**n)."""
    return np.asarray(variances, dtype=np.float64) @ coefficients(players(variances)) ** 2


def residual(values: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Σφ − (v(N) − v(∅)), (...): 0 where shares are efficient, else what an estimate missed."""
    values = np.asarray(values, dtype=np.float64)
    return np.sum(shares, axis=-1) - (values[..., -1] - values[..., 0])
