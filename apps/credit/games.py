"""Cooperative games on small tables: Shapley, Banzhaf, Owen and their kin, each with its variance.

Not a credit method: pure formulas. A game of n players is an array whose last axis has 2**n entries; entry `mask` is
the value v(S) of the coalition whose members are the set bits of `mask` (bit i = player i). Leading axes are
independent games. Every index is a linear map of the table, kept as a matrix: φ = v @ matrix, and where every v(S)
is an independent estimate, variance of φ = variance of v @ matrix². Entries that an index does not use are not
looked at and may be NaN; `needed` tells which it uses.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import cache, lru_cache
from itertools import combinations
from math import factorial

import numpy as np

LARGEST = 16  # players; beyond it the table itself is the trouble


def players(values: np.ndarray) -> int:
    """n of a table (..., 2**n). ValueError where the last axis is no power of two."""
    size = np.shape(values)[-1]
    if size < 1 or size & (size - 1) or size > 2**LARGEST:
        raise ValueError(f"a game has 2**n values, n ≤ {LARGEST}; the last axis of {np.shape(values)} has {size}")
    return size.bit_length() - 1


def shapley(values: np.ndarray) -> np.ndarray:
    """φ (..., n) of each player in each game (..., 2**n). Efficient: Σφ = v(N) − v(∅)."""
    return _apply(values, coefficients(players(values)))


def shapley_variance(variances: np.ndarray) -> np.ndarray:
    """Variance (..., n) of φ when every v(S) is an independent estimate of variance (..., 2**n)."""
    return _apply(variances, coefficients(players(variances)) ** 2)


def banzhaf(values: np.ndarray) -> np.ndarray:
    """β (..., n): what a player adds, on average over all coalitions of the others. Its sum is not v(N) − v(∅)."""
    return _apply(values, banzhaf_coefficients(players(values)))


def banzhaf_variance(variances: np.ndarray) -> np.ndarray:
    """Variance (..., n) of β."""
    return _apply(variances, banzhaf_coefficients(players(variances)) ** 2)


def leave_one_out(values: np.ndarray) -> np.ndarray:
    """v(N) − v(N∖i) (..., n). It uses n + 1 entries, and is 0 for everyone in a redundant team."""
    return _apply(values, leave_one_out_coefficients(players(values)))


def leave_one_out_variance(variances: np.ndarray) -> np.ndarray:
    """Variance (..., n) of v(N) − v(N∖i)."""
    return _apply(variances, leave_one_out_coefficients(players(variances)) ** 2)


def interaction(values: np.ndarray) -> np.ndarray:
    """The Shapley interaction index (..., n, n) of each pair: above 0 synergy, below 0 redundancy; diagonal 0."""
    n = players(values)
    return _square(_apply(values, interaction_coefficients(n)), n)


def interaction_variance(variances: np.ndarray) -> np.ndarray:
    """Variance (..., n, n) of the Shapley interaction index."""
    n = players(variances)
    return _square(_apply(variances, interaction_coefficients(n) ** 2), n)


def banzhaf_interaction(values: np.ndarray) -> np.ndarray:
    """The Banzhaf interaction index (..., n, n): all coalitions of the others weigh the same; diagonal 0."""
    n = players(values)
    return _square(_apply(values, interaction_coefficients(n, equal=True)), n)


def owen(values: np.ndarray, groups: Sequence[Hashable]) -> np.ndarray:
    """Owen's value (..., n): Shapley over unions, and within a union with the other unions whole or absent.

    `groups[i]` names the union of player i, such as its role. Efficient; n unions of one, and one union of all, give
    the Shapley value.
    """
    return _apply(values, owen_coefficients(_labels(groups, players(values))))


def owen_variance(variances: np.ndarray, groups: Sequence[Hashable]) -> np.ndarray:
    """Variance (..., n) of Owen's value."""
    return _apply(variances, owen_coefficients(_labels(groups, players(variances))) ** 2)


def precedence(values: np.ndarray, required: Sequence[int]) -> np.ndarray:
    """The Shapley value (..., n) where some players cannot be absent: they always come first, and together.

    Only ∅ and coalitions with all of `required` can happen. Efficient: the required share v(R) − v(∅) equally.
    """
    return _apply(values, precedence_coefficients(players(values), tuple(sorted(set(required)))))


def precedence_variance(variances: np.ndarray, required: Sequence[int]) -> np.ndarray:
    """Variance (..., n) of the value where `required` cannot be absent."""
    return _apply(variances, precedence_coefficients(players(variances), tuple(sorted(set(required)))) ** 2)


def residual(values: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Σφ − (v(N) − v(∅)), (...): 0 where shares are efficient, else what an estimate missed."""
    values = np.asarray(values, dtype=np.float64)
    return np.sum(shares, axis=-1) - (values[..., -1] - values[..., 0])


def needed(matrix: np.ndarray) -> np.ndarray:
    """The coalitions, as masks in rising order, that an index with this matrix uses."""
    return np.flatnonzero(matrix.any(axis=1))


@cache
def coefficients(n: int) -> np.ndarray:
    """The Shapley value (1953) as a matrix (2**n, n): φ_i = Σ_{S⊆N∖i} |S|!(n−|S|−1)!/n! · [v(S∪i) − v(S)]."""
    matrix = np.zeros((2**n, n))
    for i in range(n):
        masks, sizes = unions([1 << j for j in range(n) if j != i])
        _marginal(matrix, i, masks, arrival(n)[sizes])
    return _kept(matrix)


@cache
def banzhaf_coefficients(n: int) -> np.ndarray:
    """The Banzhaf value (1965) as a matrix (2**n, n): β_i = 2^{1−n} Σ_{S⊆N∖i} [v(S∪i) − v(S)]."""
    member = np.arange(2**n)[:, None] >> np.arange(n) & 1
    return _kept((2 * member - 1) * 2.0 ** (1 - n))


@cache
def leave_one_out_coefficients(n: int) -> np.ndarray:
    """v(N) − v(N∖i) as a matrix (2**n, n)."""
    matrix = np.zeros((2**n, n))
    for i in range(n):
        _marginal(matrix, i, np.array([2**n - 1 - (1 << i)]), 1.0)
    return _kept(matrix)


@cache
def interaction_coefficients(n: int, equal: bool = False) -> np.ndarray:
    """Pairwise interaction as a matrix (2**n, n(n−1)/2), pairs in the order of `combinations`.

    Σ_{S⊆N∖ij} w(S)·[v(S∪ij) − v(S∪i) − v(S∪j) + v(S)]. Shapley's (Grabisch & Roubens 1999): w = |S|!(n−|S|−2)!/(n−1)!;
    with `equal` Banzhaf's: w = 2^{2−n}.
    """
    pairs = list(combinations(range(n), 2))
    matrix = np.zeros((2**n, len(pairs)))
    for column, (i, j) in enumerate(pairs):
        masks, sizes = unions([1 << k for k in range(n) if k not in (i, j)])
        weight = np.full(len(masks), 2.0 ** (2 - n)) if equal else arrival(n - 1)[sizes]
        _marginal(matrix, column, masks, -weight, player=i)
        _marginal(matrix, column, masks | 1 << j, weight, player=i)
    return _kept(matrix)


@lru_cache(maxsize=64)
def owen_coefficients(groups: tuple[int, ...]) -> np.ndarray:
    """Owen's value (1977) as a matrix (2**n, n); `groups[i]` is the number of player i's union.

    φ_i = Σ_H |H|!(m−|H|−1)!/m! Σ_{S⊆B∖i} |S|!(b−|S|−1)!/b! · [v(Q∪S∪i) − v(Q∪S)], B the union of i with b members,
    H a set of the other m − 1 unions and Q all members of H.
    """
    n, names = len(groups), sorted(set(groups))
    whole = {name: sum(1 << i for i in range(n) if groups[i] == name) for name in names}
    matrix = np.zeros((2**n, n))
    for i, own in enumerate(groups):
        others, count = unions([whole[name] for name in names if name != own])
        mates, size = unions([1 << j for j in range(n) if groups[j] == own and j != i])
        weight = arrival(len(names))[count][:, None] * arrival(groups.count(own))[size]
        _marginal(matrix, i, (others[:, None] | mates).ravel(), weight.ravel())
    return _kept(matrix)


@lru_cache(maxsize=64)
def precedence_coefficients(n: int, required: tuple[int, ...]) -> np.ndarray:
    """The value under precedence (Faigle & Kern 1992) as a matrix (2**n, n): orders in which `required` come first.

    With one required player this is theirs. They would also value a part of several; it cannot be played without the
    rest, so it counts as ∅.
    """
    if not set(required) <= set(range(n)):
        raise ValueError(f"required players are numbers from 0 to {n - 1}; given {list(required)}")
    first, rest = sum(1 << i for i in required), [i for i in range(n) if i not in required]
    matrix = np.zeros((2**n, n))
    for i in required:
        matrix[first, i], matrix[0, i] = 1 / len(required), -1 / len(required)
    for i in rest:
        masks, sizes = unions([1 << j for j in rest if j != i])
        _marginal(matrix, i, masks | first, arrival(len(rest))[sizes])
    return _kept(matrix)


def arrival(n: int) -> np.ndarray:
    """(n,): the chance that, in a random order of n players, those before a player are one given set of s = 0 … n−1."""
    return np.array([factorial(s) * factorial(n - s - 1) / factorial(n) for s in range(n)])


def unions(parts: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Every union of `parts` (masks that share no player), as masks (2**parts,), and of how many parts it is."""
    masks = counts = np.zeros(1, dtype=np.int64)
    for part in parts:
        masks, counts = np.concatenate([masks, masks | part]), np.concatenate([counts, counts + 1])
    return masks, counts


def _marginal(matrix: np.ndarray, column: int, masks: np.ndarray, weight, player: int | None = None) -> None:
    """Enters weight · [v(S∪i) − v(S)] for S in `masks`, which lack the player (else the column's own)."""
    matrix[masks | 1 << (column if player is None else player), column] = weight
    matrix[masks, column] = -weight


def _labels(groups: Sequence[Hashable], n: int) -> tuple[int, ...]:
    """The union of each player as a number, so that equal partitions share a matrix whatever their names."""
    if len(groups) != n:
        raise ValueError(f"owen: groups names the union of each of the {n} players; given {len(groups)}")
    first = {name: number for number, name in reversed(list(enumerate(groups)))}
    return tuple(first[name] for name in groups)


def _apply(table: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """table @ matrix over the entries that the matrix uses."""
    table = np.asarray(table, dtype=np.float64)
    used = matrix.any(axis=1)
    return table @ matrix if used.all() else table[..., used] @ matrix[used]


def _square(pairs: np.ndarray, n: int) -> np.ndarray:
    """(..., n(n−1)/2) as a symmetric matrix (..., n, n) with a diagonal of 0."""
    square, (i, j) = np.zeros((*pairs.shape[:-1], n, n)), np.triu_indices(n, 1)
    square[..., i, j] = square[..., j, i] = pairs
    return square


def _kept(matrix: np.ndarray) -> np.ndarray:
    matrix.flags.writeable = False  # it is cached
    return matrix
