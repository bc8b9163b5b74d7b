"""CISPO: REINFORCE with importance weights that are bounded and held fixed, so that every token keeps its gradient.

−Σ sg[min(ρ, c)] A logp / Σ m, plus β · KL, over all own tokens of the whole step; sg: no gradient. Source: arXiv
2506.13585, eqs. 4 and 5, which has no lower bound and publishes no upper one; c = 5 is that of arXiv 2510.13786.

Three things bear this name: c as an absolute bound of ρ (here), 1 + ε_high with the same meaning (so its 4 is our 5), and
bounds on both sides near 1, as of PPO, which throw away what the method is for. `clip_fraction` is the share of tokens
whose weight was bounded; none of them has lost its gradient.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from apps.training.batch import Batch
from apps.training.objectives import policy_gradient
from apps.training.objectives.tokens import own

if TYPE_CHECKING:
    from torch import Tensor

NEEDS: frozenset[str] = frozenset({"old", "reference", "advantages"})


class Options(policy_gradient.Reference):
    """The largest weight, and how strongly the reference holds."""

    bound: float = Field(5.0, ge=1, description="c: the largest importance weight of a token, not a distance from 1")
    kl_weighted: bool = Field(False, description="multiply the KL by the ratio: its gradient is right off-policy too")


def needs(options: Options) -> frozenset[str]:
    """What a batch has to carry with these options."""
    return policy_gradient.wanted(NEEDS, options)


def loss(batch: Batch, options: Options) -> tuple[Tensor, dict[str, float]]:
    """A scalar, to be summed over micro-batches."""
    ratio_BT = policy_gradient.log_ratio(batch).exp()
    penalty_BT, metrics = policy_gradient.penalty(batch, options, ratio_BT if options.kl_weighted else None)
    weight_BT = ratio_BT.detach().clamp(max=options.bound)
    plain_BT = weight_BT * own(batch.advantages_BT, batch) * own(batch.logprobs_BT, batch)
    gain_BT, figures = policy_gradient.corrected(plain_BT, penalty_BT, batch, options)
    metrics |= figures | {
        "clip_fraction": policy_gradient.mean((ratio_BT > options.bound).to(ratio_BT.dtype), batch),
        "ratio_mean": policy_gradient.mean(ratio_BT, batch),
    }
    return -gain_BT.sum() / batch.tokens, metrics
