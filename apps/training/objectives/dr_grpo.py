"""Dr.GRPO's loss: GRPO divided by a constant length, so that the length of an answer has no say in its weight.

−1/(G · L_max) Σ_i Σ_t { min(ρA, clip(ρ, 1−ε, 1+ε)A) − β · KL }, G the sequences of the whole step and L_max a constant:
not the longest sequence of the moment, which would make a step depend on its company. Source: arXiv 2503.20783, section
3.2; ε = .2 and β = 0 as published. A constant factor scales the gradient, and thereby only how often its norm is clipped.

It is half of Dr.GRPO: the other is the advantage of that name, R − mean, without a division by the deviation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from apps.training.batch import Batch
from apps.training.objectives import policy_gradient

if TYPE_CHECKING:
    from torch import Tensor

NEEDS: frozenset[str] = frozenset({"old", "reference", "advantages"})


class Options(policy_gradient.Clip):
    """How far a step may go, how strongly the reference holds, and the constant length."""

    length: int = Field(64, ge=1, description="L_max in tokens: the sampler's max_new_tokens")


def needs(options: Options) -> frozenset[str]:
    """What a batch has to carry with these options."""
    return policy_gradient.wanted(NEEDS, options)


def loss(batch: Batch, options: Options) -> tuple[Tensor, dict[str, float]]:
    """A scalar, to be summed over micro-batches."""
    gain_BT, metrics = policy_gradient.gain(batch, options)
    return -gain_BT.sum() / (batch.sequences * options.length), metrics
