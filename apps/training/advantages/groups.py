"""Normalising numbers within groups: the one step that every group-relative estimator shares. Not an estimator."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from apps.records import MeritError, Valued

ROUNDING = 1e-9  # values of a group that differ by no more are equal: sums of Shapley weights leave such dust


def normalised(values: np.ndarray, keys: Sequence[Hashable], epsilon: float) -> np.ndarray:
    """(R − mean)/(std + ε) within each group of equal keys, (n,) to (n,); std with n − 1, as in TRL.

    NaN, which means "no gradient", in a group of one or without variance.
    """
    members: dict[Hashable, list[int]] = {}
    for position, key in enumerate(keys):
        members.setdefault(key, []).append(position)
    result = np.full(len(values), np.nan)
    for group in members.values():
        if np.ptp(values[group]) > ROUNDING:  # 0 for a group of one
            result[group] = (values[group] - values[group].mean()) / (values[group].std(ddof=1) + epsilon)
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
