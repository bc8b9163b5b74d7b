"""Draws the next token of each row, by inverting the distribution's cumulated sum at the row's own random number.

One number in [0, 1) a token, keyed by the row's seed, decides: the draw does not depend on the batch, as far as the
logits don't. Log-probabilities are those of the distribution that was sampled, cut and renormalised as it was; which ids were
left by the cut is told, so that a trainer can renormalise over just these.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from apps.records import Sampling

if TYPE_CHECKING:
    from torch import Tensor


def uniforms(seed: int, count: int) -> np.ndarray:
    """`count` random numbers in [0, 1) that belong to `seed`. float64 (count,)."""
    return np.random.Generator(np.random.Philox(key=seed)).random(count)


def draw(logits_BV: Tensor, uniform_B: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Token ids (B,) and their log-probabilities (B,) in nats. Temperature 0 takes the likeliest, with 0 nats."""
    if sampling.temperature == 0:
        chosen = logits_BV.argmax(-1)
        return chosen, logits_BV.new_zeros(len(chosen))
    logprobs = distribution(logits_BV, sampling)
    cumulated = logprobs.double().exp().cumsum(-1)
    threshold = uniform_B[:, None] * cumulated[:, -1:]
    chosen = (cumulated <= threshold).sum(-1).clamp(max=logits_BV.shape[-1] - 1)
    return chosen, logprobs.gather(-1, chosen[:, None])[:, 0]


def survivors(logits_BV: Tensor, sampling: Sampling) -> list[np.ndarray] | None:
    """The ids that top-k and top-p leave in each row, int32; None where every token can be drawn, or just one (greedy)."""
    if sampling.whole or sampling.temperature == 0:
        return None
    left_BV = (distribution(logits_BV, sampling) > -float("inf")).cpu().numpy()
    return [np.flatnonzero(row).astype(np.int32) for row in left_BV]


def table(left: Sequence[np.ndarray]) -> np.ndarray:
    """Sets of ids as int32 (C, K), −1 beyond each set."""
    made = np.full((len(left), max(map(len, left))), -1, np.int32)
    for row, ids in zip(made, left, strict=True):
        row[: len(ids)] = ids
    return made


def distribution(logits_BV: Tensor, sampling: Sampling) -> Tensor:
    """Log-probabilities (B, V) after temperature, then top-k, then top-p; cut tokens have -inf."""
    logprobs = (logits_BV.float() / sampling.temperature).log_softmax(-1)
    if 0 < sampling.top_k < logprobs.shape[-1]:
        least = logprobs.topk(sampling.top_k, -1).values[:, -1:]
        logprobs = logprobs.masked_fill(logprobs < least, -float("inf")).log_softmax(-1)
    if sampling.top_p < 1:
        ordered, order = logprobs.sort(-1, descending=True)
        before = ordered.exp().cumsum(-1) - ordered.exp()
        cut = (before >= sampling.top_p).scatter(-1, order, before >= sampling.top_p)
        logprobs = logprobs.masked_fill(cut, -float("inf")).log_softmax(-1)
    return logprobs
