"""Draws the next token of each row, by inverting the distribution's cumulated sum at the row's own random number.

One number in [0, 1) a token, keyed by the row's seed, decides: the draw does not depend on the batch, as far as the
logits don't. Log-probabilities are those of the distribution that was sampled, cut and renormalised as it was.
"""

from __future__ import annotations

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
