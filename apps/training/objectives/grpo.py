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

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from apps.training.batch import Batch
from apps.training.objectives import policy_gradient

if TYPE_CHECKING:
    from torch import Tensor

NEEDS: frozenset[str] = frozenset({"old", "reference", "advantages"})


class Options(policy_gradient.Clip):
    """How far a step may go, and how strongly the reference holds."""

    beta: float = Field(0.04, ge=0, description="weight of the KL to the reference; 0 wants no reference")
    kl: Literal["k1", "k2", "k3"] = Field("k3", description="estimator of that KL, in the loss; k3 as published")


def needs(options: Options) -> frozenset[str]:
    """What a batch has to carry with these options."""
    return policy_gradient.wanted(NEEDS, options)


def loss(batch: Batch, options: Options) -> tuple[Tensor, dict[str, float]]:
    """A scalar, to be summed over micro-batches."""
    gain_BT, metrics = policy_gradient.gain(batch, options)
    return -(gain_BT.sum(dim=1) / policy_gradient.lengths(batch)).sum() / batch.sequences, metrics
