"""GRPO in its published form: clipped ratios, the mean over sequences of token means, and a k3 KL in the loss.

−1/G Σ_i 1/|o_i| Σ_t { min(ρA, clip(ρ, 1−ε, 1+ε)A) − β · k3 }, with ρ = π_θ/π_old, d = logp_ref − logp_θ, k3 = e^d − d
− 1, |o_i| the agent's own tokens of a sequence and G the sequences of the whole step. Source: arXiv 2402.03300, eqs.
3 and 4; β = .04 as published there, ε = .2 of PPO.

The gradient of k3 in the loss is that of the other KL (π_ref to π_θ); kept, as it is what was published under this
name. Dividing by |o_i| favours short right and long wrong answers; Dr.GRPO and DAPO do otherwise and are other files.
With β = 0 the reference may be absent. Metrics add up over micro-batches as the loss does; `kl` is nats a token, and
a mean over tokens, not over sequences.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from apps import records
from apps.training.batch import Batch
from apps.training.objectives.tokens import own

if TYPE_CHECKING:
    from torch import Tensor

NEEDS: frozenset[str] = frozenset({"old", "reference", "advantages"})


class Options(records.Options):
    """How far a step may go, and how strongly the reference holds."""

    clip_low: float = Field(0.2, ge=0, le=1, description="ratios below 1 - clip_low gain nothing more")
    clip_high: float = Field(0.2, ge=0, description="ratios above 1 + clip_high gain nothing more")
    beta: float = Field(0.04, ge=0, description="weight of the KL to the reference")


def needs(options: Options) -> frozenset[str]:
    """Without a KL term no reference is wanted: a third of the forward passes."""
    return NEEDS if options.beta else NEEDS - {"reference"}


def loss(batch: Batch, options: Options) -> tuple[Tensor, dict[str, float]]:
    """A scalar, to be summed over micro-batches."""
    logprobs_BT, advantages_BT = own(batch.logprobs_BT, batch), own(batch.advantages_BT, batch)
    ratio_BT = (logprobs_BT - own(batch.old_BT, batch)).exp()
    gain_BT = clipped(ratio_BT, advantages_BT, options)
    metrics = {
        "clip_fraction": mean(clip_bites(ratio_BT, advantages_BT, options), batch),
        "ratio_mean": mean(ratio_BT, batch),
    }
    if batch.reference_BT is not None or options.beta:
        kl_BT = k3(logprobs_BT, own(batch.reference_BT, batch))
        gain_BT = gain_BT - options.beta * kl_BT
        metrics["kl"] = mean(kl_BT, batch)
    length_B = own(batch.mask_BT.to(gain_BT.dtype), batch).sum(dim=1).clamp(min=1)
    return -(gain_BT.sum(dim=1) / length_B).sum() / batch.sequences, metrics


def clipped(ratio_BT: Tensor, advantages_BT: Tensor, options: Options) -> Tensor:
    """min(ρA, clip(ρ)A), (B, T)."""
    bounded_BT = ratio_BT.clamp(1 - options.clip_low, 1 + options.clip_high)
    return (ratio_BT * advantages_BT).minimum(bounded_BT * advantages_BT)


def clip_bites(ratio_BT: Tensor, advantages_BT: Tensor, options: Options) -> Tensor:
    """1 where the clip has taken the gradient away, (B, T)."""
    high_BT = (ratio_BT > 1 + options.clip_high) & (advantages_BT > 0)
    low_BT = (ratio_BT < 1 - options.clip_low) & (advantages_BT < 0)
    return (high_BT | low_BT).to(ratio_BT.dtype)


def k3(logprobs_BT: Tensor, reference_BT: Tensor) -> Tensor:
    """e^d − d − 1 with d = logp_ref − logp_θ: at least 0, and 0 where they agree; (B, T), nats."""
    d_BT = reference_BT - logprobs_BT
    return d_BT.exp() - d_BT - 1


def mean(values_BT: Tensor, batch: Batch) -> float:
    """This micro-batch's share of a mean over all own tokens of the step."""
    return float(own(values_BT.detach(), batch).sum()) / batch.tokens
