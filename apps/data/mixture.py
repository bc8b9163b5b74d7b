"""Of which domains a wave of continued pretraining is made: the share of general data, and weights that follow the losses.

Continued pretraining forgets, and replayed general data holds that (arXiv 2403.08763 finds that a few per cent can do; 20 %
is a careful starting point). The share is fixed, or goes linearly from the first wave's to the last wave's.

Within that, weights may follow the losses, as in Sheared LLaMA's dynamic batch loading (arXiv 2310.06694, algorithm 1; its
rule is DoReMi's, arXiv 2305.10429, without a proxy model): a domain whose held-out loss exceeds its reference is drawn more,

    w_i ← w_i · exp(max(loss_i − reference_i, 0)), then normalised.

Weights change between waves alone, from losses that are artifacts. What differs from the paper: the reference of a domain is
the base model's own loss unless the user gives one, so that what is being forgotten comes back; with `sides` the rule
works within the new and within the general domains, and the share between the two stays what it was set to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp
from typing import Literal

import numpy as np
from pydantic import Field

from apps import records

Weights = dict[str, float]


class Options(records.Options):
    """How much of what."""

    general: float = Field(0.2, ge=0, lt=1, description="share of rows that replay general data, in the first wave")
    general_last: float | None = Field(
        None, ge=0, lt=1, description="the same in the last wave; default: as in the first"
    )
    adaptive: Literal["none", "sides", "all"] = Field(
        "sides",
        description="what follows the losses: nothing, weights among new and among general domains, or all weights",
    )
    weights: dict[str, float] = Field({}, description="of a domain within its side; default: its number of rows")
    reference: dict[str, float] = Field({}, description="of a domain, nats a token; default: the base model's loss")


def share_at(wave: int, waves: int, options: Options) -> float:
    """The share of general data in a wave (from 1), linear from the first to the last."""
    last = options.general if options.general_last is None else options.general_last
    return options.general + (last - options.general) * (wave - 1) / max(1, waves - 1)


def prior(sizes: Mapping[str, int], general: Sequence[str], share: float, weights: Mapping[str, float]) -> Weights:
    """What a wave starts from: each side has its share; within it, the given weights or the number of rows."""
    own = {name: float(weights.get(name, size)) for name, size in sizes.items()}
    sides = {side: [n for n in own if (n in general) == side] for side in (False, True)}
    parts = {False: 1 - share if sides[True] else 1.0, True: share if sides[False] else 1.0}
    return {n: parts[side] * own[n] / sum(own[m] for m in sides[side]) for side in (False, True) for n in sides[side]}


def raised(pushes: Mapping[str, float], losses: Mapping[str, float], reference: Mapping[str, float]) -> Weights:
    """The exponents of the weights after a wave: what each domain's loss exceeds its reference by, added up (nats a token)."""
    return {name: pushes.get(name, 0.0) + max(0.0, losses[name] - reference[name]) for name in losses}


def weighed(before: Weights, pushes: Mapping[str, float], general: Sequence[str], adaptive: str) -> Weights:
    """The wave's weights, which sum to 1: prior times exp(push), brought to each side's share or, for `all`, to 1."""
    if adaptive == "none":
        return dict(before)
    side = {name: adaptive == "all" or name in general for name in before}
    most = {s: max((pushes.get(n, 0.0) for n in before if side[n] == s), default=0.0) for s in (False, True)}
    pushed = {n: weight * exp(pushes.get(n, 0.0) - most[side[n]]) for n, weight in before.items()}  # no overflow
    old = {s: sum(before[n] for n in before if side[n] == s) for s in (False, True)}
    new = {s: sum(pushed[n] for n in before if side[n] == s) for s in (False, True)}
    return {name: value * old[side[name]] / (new[side[name]] or 1.0) for name, value in pushed.items()}


def counts(weights: Mapping[str, float], total: int) -> dict[str, int]:
    """`total` rows dealt by weight: the whole parts first, then one each to the largest remainders (ties: by name)."""
    exact = {name: weight * total for name, weight in weights.items()}
    dealt = {name: int(value + 1e-9) for name, value in exact.items()}
    short = total - sum(dealt.values())
    for name in sorted(exact, key=lambda n: (round(dealt[n] - exact[n], 9), n))[:short]:
        dealt[name] += 1
    return dealt


def drawn(pool: np.ndarray, start: int, count: int, seed: Sequence[int]) -> np.ndarray:
    """Members start … start + count − 1 of `pool`, gone through again and again, each time in a new order."""
    if not count:
        return pool[:0]
    passes = range(start // len(pool), (start + count - 1) // len(pool) + 1)
    orders = [np.random.default_rng([*seed, number]).permutation(pool) for number in passes]
    first = start - passes[0] * len(pool)
    return np.concatenate(orders)[first : first + count]


def oversampled(marked: np.ndarray, factor: int) -> np.ndarray:
    """Numbers of rows, those that are `marked` (N,) so many times: what a warm-up of new words draws from."""
    return np.repeat(np.arange(len(marked)), np.where(marked, factor, 1))
