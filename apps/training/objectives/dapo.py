"""DAPO's loss: every token of the step counts alike, and ratios may rise further than they may fall.

−Σ_i Σ_t min(ρA, clip(ρ, 1 − ε_low, 1 + ε_high)A) / Σ m, over all own tokens of the whole step. Source: arXiv 2503.14476,
eq. 8; ε_low = .2, ε_high = .28 and no KL (β = 0) as published.

Two of DAPO's four parts are here: clip-higher and the token-level loss. Dynamic sampling is `rollout.waves`, the penalty
for answers that run long `rollout.overlong`.
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
    """How far a step may go, and how strongly the reference holds."""

    clip_high: float = Field(0.28, ge=0, description="ratios above 1 + clip_high gain nothing more")


def needs(options: Options) -> frozenset[str]:
    """What a batch has to carry with these options."""
    return policy_gradient.wanted(NEEDS, options)


def loss(batch: Batch, options: Options) -> tuple[Tensor, dict[str, float]]:
    """A scalar, to be summed over micro-batches."""
    gain_BT, metrics = policy_gradient.gain(batch, options)
    return -gain_BT.sum() / batch.tokens, metrics
