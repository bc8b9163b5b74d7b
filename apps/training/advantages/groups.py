"""Groups of turns and their statistics: the one step that every group-relative estimator shares. Not an estimator."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

import numpy as np

from apps.records import MeritError, Valued

ROUNDING = 1e-9  # values of a group that differ by no more are equal: sums of Shapley weights leave such dust


def varied(values: np.ndarray, keys: Sequence[Hashable]) -> Iterator[list[int]]:
    """The positions of each group of equal keys, but for groups of one or without variance: they say nothing."""
    members: dict[Hashable, list[int]] = {}
    for position, key in enumerate(keys):
        members.setdefault(key, []).append(position)
    return (group for group in members.values() if np.ptp(values[group]) > ROUNDING)  # ptp: 0 for a group of one


def centred(values: np.ndarray, keys: Sequence[Hashable]) -> np.ndarray:
    """R − mean within each group, (n,) to (n,). NaN, which means "no gradient", where a group says nothing."""
    result = np.full(len(values), np.nan)
    for group in varied(values, keys):
        result[group] = values[group] - values[group].mean()
    return result


def normalised(values: np.ndarray, keys: Sequence[Hashable], epsilon: float) -> np.ndarray:
    """(R − mean)/(std + ε) within each group, (n,) to (n,); std with n − 1, as in TRL. NaN where a group says nothing."""
    result = centred(values, keys)
    for group in varied(values, keys):
        result[group] /= values[group].std(ddof=1) + epsilon
    return result


def credits(turns: Sequence[Valued]) -> np.ndarray:
    """The turns' values, float64 (len(turns),). MeritError where one is no number: it would void its whole group."""
    values = np.array([turn.value for turn in turns], dtype=np.float64)
    for position in np.flatnonzero(~np.isfinite(values))[:1]:
        turn = turns[position]
        raise MeritError(
            f"advantages: turn {turn.index} of {turn.agent!r} in trace {turn.trace!r} has the credit {turn.value}, a "
            "number was expected; assign credit again"
        )
    return values
