"""GSPO: one ratio a sequence, the geometric mean of its tokens' ratios, clipped within a hair of 1.

−1/G Σ_i min(s_i A_i, clip(s_i, 1 − ε_low, 1 + ε_high)A_i), s_i = exp(mean_t log ρ_t) over the agent's own tokens, G the
sequences of the whole step; plus β · KL, a mean of token means as in GRPO. Source: arXiv 2507.18071, eqs. 5 and 7; ε_low
= 3e-4, ε_high = 4e-4 as published (section 5.1), no KL.

The ε of PPO (.2) would never bite: a mean of log-ratios moves by thousandths. A_i is the mean advantage of the row's own
tokens; this is not GSPO-token, where each token has its own. `clip_fraction` and `ratio_mean` are means over sequences.
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


class Options(policy_gradient.Clip):
    """How far a step may go, and how strongly the reference holds."""

    clip_low: float = Field(3e-4, ge=0, le=1, description="ratios below 1 - clip_low gain nothing more")
    clip_high: float = Field(4e-4, ge=0, description="ratios above 1 + clip_high gain nothing more")


def needs(options: Options) -> frozenset[str]:
    """What a batch has to carry with these options."""
    return policy_gradient.wanted(NEEDS, options)


def loss(batch: Batch, options: Options) -> tuple[Tensor, dict[str, float]]:
    """A scalar, to be summed over micro-batches."""
    length_B = policy_gradient.lengths(batch)
    log_ratio_BT = policy_gradient.log_ratio(batch)
    ratio_B = (log_ratio_BT.sum(dim=1) / length_B).exp()
    advantages_B = own(batch.advantages_BT, batch).sum(dim=1) / length_B
    penalty_BT, metrics = policy_gradient.penalty(batch, options, log_ratio_BT.exp() if options.kl_weighted else None)
    gain_B = policy_gradient.clipped(ratio_B, advantages_B, options) - penalty_BT.sum(dim=1) / length_B
    bites_B = policy_gradient.clip_bites(ratio_B, advantages_B, options)
    metrics |= {
        "clip_fraction": float(bites_B.sum()) / batch.sequences,
        "ratio_mean": float(ratio_B.detach().sum()) / batch.sequences,
    }
    return -gain_B.sum() / batch.sequences, metrics
