"""What the policy-gradient objectives share: ratio, clip, the KL to the reference, entropy, correction. Not an objective.

ρ = π_θ/π_old a token, where π_old is the policy that sampled, with the engine's own log-probabilities: so ρ already holds
what engine and trainer disagree about, and is clipped with it. Where that is corrected (correction.py), π_old is the
trainer's own policy before its first step, and each token's gain has a weight beside.

The entropy bonus takes c·H(π_θ) off the loss at each own token, H over the whole vocabulary at the sampler's temperature,
with its gradient: that of arXiv 1707.06347, eq. 9. No paper of language models in this folder has one; c = .01 there is
a game's.

The dual clip (arXiv 1912.09729, where c = 3): without it a bad token that was made much likelier is pushed down
without bound, as min(ρA, clip(ρ)A) = ρA there.

The KL(π_θ‖π_ref) is estimated at the sampled tokens, with d = logp_ref − logp_θ (Schulman, joschu.net/blog/kl-approx.html):

- k1 = −d. Unbiased as a figure; in a loss its gradient is 0 in expectation, so it needs `kl_weighted`.
- k2 = d²/2. Its gradient is that of the KL, on-policy; `kl_weighted` keeps it so off-policy, with ρ held fixed.
- k3 = e^d − d − 1 ≥ 0. Unbiased as a figure; its gradient is that of the other KL, KL(π_ref‖π_θ), unless `kl_weighted`.

Metrics add up over micro-batches as losses do; `kl` is k3 whatever the loss has, nats a token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from apps.training.batch import Batch
from apps.training.objectives import correction
from apps.training.objectives.tokens import own

if TYPE_CHECKING:
    from torch import Tensor


class Reference(correction.Correction):
    """How strongly the reference holds, what unsureness is worth, how the engine is corrected for."""

    beta: float = Field(0.0, ge=0, description="weight of the KL to the reference; 0 wants no reference")
    kl: Literal["k1", "k2", "k3"] = Field("k2", description="estimator of that KL, in the loss")
    entropy: float = Field(0.0, ge=0, description="c of the bonus c times the entropy of each token's distribution")


class Clip(Reference):
    """How far a step may go."""

    clip_low: float = Field(0.2, ge=0, le=1, description="ratios below 1 - clip_low gain nothing more")
    clip_high: float = Field(0.2, ge=0, description="ratios above 1 + clip_high gain nothing more")
    dual_clip: float | None = Field(None, gt=1, description="a bad token's ratio counts up to this (3); null: no bound")
    kl_weighted: bool = Field(False, description="multiply the KL by the ratio: its gradient is right off-policy too")


def wanted(needs: frozenset[str], options: Reference) -> frozenset[str]:
    """What these options need: without a KL term no reference, which is a third of the forward passes."""
    needs = needs if options.beta else needs - {"reference"}
    needs = needs | {"entropy"} if options.entropy else needs
    return needs | correction.NEEDED if options.corrects else needs


def log_ratio(batch: Batch) -> Tensor:
    """log ρ of each own token, 0 elsewhere; (B, T), nats. π_old is the trainer's own where the batch carries it."""
    old_BT = batch.old_BT if batch.anchor_BT is None else batch.anchor_BT
    return own(batch.logprobs_BT, batch) - own(old_BT, batch)


def corrected(gain_BT: Tensor, penalty_BT: Tensor, batch: Batch, options: Reference) -> tuple[Tensor, dict[str, float]]:
    """The gain of each own token with its weight, less the penalty; 0 in rows that are left out. (B, T)."""
    if not options.corrects:
        return gain_BT - penalty_BT, {}
    apart_BT = correction.log_weight(batch)
    kept_B = correction.kept(apart_BT, lengths(batch), options)
    left_BT = kept_B[:, None] * (correction.weights(apart_BT, options) * gain_BT - penalty_BT)
    return left_BT, correction.figures(apart_BT, kept_B, batch, options)


def clipped(ratio: Tensor, advantages: Tensor, options: Clip) -> Tensor:
    """min(ρA, clip(ρ, 1 − ε_low, 1 + ε_high)A), of any shape; with the dual clip c at least cA where A < 0."""
    if options.dual_clip is not None:  # max(min(ρA, clip(ρ)A), cA), said of ρ
        ratio = ratio.where(advantages >= 0, ratio.clamp(max=options.dual_clip))
    bounded = ratio.clamp(1 - options.clip_low, 1 + options.clip_high)
    return (ratio * advantages).minimum(bounded * advantages)


def clip_bites(ratio: Tensor, advantages: Tensor, options: Clip) -> Tensor:
    """1 where a clip has taken the gradient away, of any shape."""
    bites = (ratio > 1 + options.clip_high) & (advantages > 0)
    bites |= (ratio < 1 - options.clip_low) & (advantages < 0)
    if options.dual_clip is not None:
        bites |= (ratio > options.dual_clip) & (advantages < 0)
    return bites.to(ratio.dtype)


def gain(batch: Batch, options: Clip) -> tuple[Tensor, dict[str, float]]:
    """What each own token gains, min(ρA, clip(ρ)A) − β·KL + c·H, 0 elsewhere, (B, T); to be averaged as an objective likes."""
    ratio_BT, advantages_BT = log_ratio(batch).exp(), own(batch.advantages_BT, batch)
    penalty_BT, metrics = penalty(batch, options, ratio_BT if options.kl_weighted else None)
    bites_BT = clip_bites(ratio_BT, advantages_BT, options)
    metrics |= {"clip_fraction": mean(bites_BT, batch), "ratio_mean": mean(ratio_BT, batch)}
    gain_BT, figures = corrected(clipped(ratio_BT, advantages_BT, options), penalty_BT, batch, options)
    return gain_BT, metrics | figures


def penalty(batch: Batch, options: Reference, weight_BT: Tensor | None = None) -> tuple[Tensor, dict[str, float]]:
    """β·KL − c·H of each own token, (B, T); `weight_BT` is ρ where the KL is weighted. Both are metrics, if known."""
    penalty_BT, metrics = divergence(batch, options, weight_BT)
    if batch.entropy_BT is not None:
        entropy_BT = own(batch.entropy_BT, batch)
        penalty_BT, metrics = penalty_BT - options.entropy * entropy_BT, metrics | {"entropy": mean(entropy_BT, batch)}
    return penalty_BT, metrics


def divergence(batch: Batch, options: Reference, weight_BT: Tensor | None) -> tuple[Tensor, dict[str, float]]:
    """β·KL of each own token, (B, T), 0 with β = 0."""
    logprobs_BT = own(batch.logprobs_BT, batch)
    if batch.reference_BT is None and not options.beta:
        return logprobs_BT.new_zeros(logprobs_BT.shape), {}
    d_BT = own(batch.reference_BT, batch) - logprobs_BT
    kl_BT = estimate(d_BT, options.kl)
    if weight_BT is not None:
        kl_BT = kl_BT * (weight_BT.detach() if options.kl == "k2" else weight_BT)
    return options.beta * kl_BT, {"kl": mean(estimate(d_BT, "k3"), batch)}


def estimate(d_BT: Tensor, estimator: str) -> Tensor:
    """k1, k2 or k3 of d = logp_ref − logp_θ, (B, T), nats; 0 where they agree."""
    return {"k1": lambda: -d_BT, "k2": lambda: d_BT.square() / 2, "k3": lambda: d_BT.exp() - d_BT - 1}[estimator]()


def lengths(batch: Batch) -> Tensor:
    """Own tokens of each row, at least 1; (B,)."""
    return batch.mask_BT.ne(0).sum(dim=1).clamp(min=1)


def mean(values_BT: Tensor, batch: Batch) -> float:
    """This micro-batch's share of a mean over all own tokens of the step."""
    return float(own(values_BT.detach(), batch).sum()) / batch.tokens
