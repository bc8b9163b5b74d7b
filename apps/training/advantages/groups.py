"""Groups of turns and their statistics: the one step that every group-relative estimator shares. Not an estimator."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

import numpy as np

from apps.records import MeritError, Tokens, Valued

ROUNDING = 1e-9  # values of a group that differ by no more are equal: sums of Shapley weights leave such dust


def members(keys: Sequence[Hashable]) -> list[list[int]]:
    """The positions of each group of equal keys."""
    found: dict[Hashable, list[int]] = {}
    for position, key in enumerate(keys):
        found.setdefault(key, []).append(position)
    return list(found.values())


def varied(values: np.ndarray, keys: Sequence[Hashable]) -> Iterator[list[int]]:
    """The same, but for groups of one or without variance: they say nothing."""
    return (group for group in members(keys) if np.ptp(values[group]) > ROUNDING)  # ptp: 0 for a group of one


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


def portion(one: np.ndarray, other: np.ndarray) -> float:
    """The share of `one` in the mean squares of two centred signals, in [0, 1]; 0 where neither varies."""
    squares = [float(np.mean(values**2)) if len(values) else 0.0 for values in (one, other)]
    return squares[0] / sum(squares) if sum(squares) > ROUNDING**2 else 0.0


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


def told(turns: Sequence[Valued]) -> list[Tokens]:
    """What is known of the turns' tokens. MeritError where it was not asked for."""
    for turn in turns:
        if turn.tokens is None:
            raise MeritError(
                f"advantages: of turn {turn.index} of {turn.agent!r} in trace {turn.trace!r} nothing is known token by "
                "token (a value model's predictions, the reference's log-probabilities), which this estimator reads"
            )
    return [turn.tokens for turn in turns]


def held(turns: Sequence[Valued], beta: float) -> np.ndarray:
    """The turns' values with the KL in the reward, R − β Σ (logp_old − logp_ref) over a turn's tokens, (n,)."""
    values = credits(turns)
    return values - beta * np.array([tokens.divergence.sum() for tokens in told(turns)]) if beta else values


def parted(flat: np.ndarray, like: Sequence[np.ndarray]) -> list[np.ndarray]:
    """A flat array cut into arrays as long as those of `like`."""
    return np.split(flat, np.cumsum([len(tokens) for tokens in like])[:-1]) if len(like) else []
