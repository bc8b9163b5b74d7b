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
from apps.training.objectives import correction, policy_gradient
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
    plain_B, penalty_B = policy_gradient.clipped(ratio_B, advantages_B, options), penalty_BT.sum(dim=1) / length_B
    gain_B, figures = corrected(plain_B, penalty_B, length_B, batch, options)
    bites_B = policy_gradient.clip_bites(ratio_B, advantages_B, options)
    metrics |= figures | {
        "clip_fraction": float(bites_B.sum()) / batch.sequences,
        "ratio_mean": float(ratio_B.detach().sum()) / batch.sequences,
    }
    return -gain_B.sum() / batch.sequences, metrics


def corrected(gain_B: Tensor, penalty_B: Tensor, length_B: Tensor, batch: Batch, options: Options):
    """The gain of each row with its weight, less the penalty; 0 for rows that are left out. (B,), and the metrics."""
    if not options.corrects:
        return gain_B - penalty_B, {}
    apart_BT = correction.log_weight(batch)
    kept_B = correction.kept(apart_BT, length_B, options)
    weight_B = correction.weights(apart_BT.sum(dim=1) / length_B, options)
    return kept_B * (weight_B * gain_B - penalty_B), correction.figures(apart_BT, kept_B, batch, options)
