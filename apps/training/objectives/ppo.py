"""PPO's clipped objective over the tokens of a step.

−Σ { min(ρA, clip(ρ, 1−ε, 1+ε)A) − β · KL } / Σ m over all own tokens of the whole step, ρ = π_θ/π_old. Source: arXiv
1707.06347, eq. 7; ε = .2 as published, the dual clip off.

The rest of PPO lies elsewhere: GAE and the KL in the reward (InstructGPT, arXiv 2203.02155) are the advantage `gae`, the
value loss is the objective `value`, and the value model is a policy of its own. With another advantage (`grpo`, `rloo`, …)
there is none of these. The KL may also be in the loss, 0 by default.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from apps.training.batch import Batch
from apps.training.objectives import policy_gradient

if TYPE_CHECKING:
    from torch import Tensor

NEEDS: frozenset[str] = frozenset({"old", "reference", "advantages"})


class Options(policy_gradient.Clip):
    """How far a step may go, and how strongly the reference holds."""


def needs(options: Options) -> frozenset[str]:
    """What a batch has to carry with these options."""
    return policy_gradient.wanted(NEEDS, options)


def loss(batch: Batch, options: Options) -> tuple[Tensor, dict[str, float]]:
    """A scalar, to be summed over micro-batches."""
    gain_BT, metrics = policy_gradient.gain(batch, options)
    return -gain_BT.sum() / batch.tokens, metrics
