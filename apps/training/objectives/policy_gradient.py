"""What the policy-gradient objectives share: the ratio, its clip and the KL to the reference. Not an objective.

ρ = π_θ/π_old a token, where π_old is the policy that sampled, with the engine's own log-probabilities: so ρ already holds
what engine and trainer disagree about, and is clipped with it. A separate correction (TIS, a sequence mask) would need the
trainer's log-probabilities of π_old too, which a batch does not carry. Nor does it carry the entropy of the whole
distribution, so there is no entropy bonus.

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

from apps import records
from apps.training.batch import Batch
from apps.training.objectives.tokens import own

if TYPE_CHECKING:
    from torch import Tensor


class Reference(records.Options):
    """How strongly the reference holds."""

    beta: float = Field(0.0, ge=0, description="weight of the KL to the reference; 0 wants no reference")
    kl: Literal["k1", "k2", "k3"] = Field("k2", description="estimator of that KL, in the loss")


class Clip(Reference):
    """How far a step may go."""

    clip_low: float = Field(0.2, ge=0, le=1, description="ratios below 1 - clip_low gain nothing more")
    clip_high: float = Field(0.2, ge=0, description="ratios above 1 + clip_high gain nothing more")
    dual_clip: float | None = Field(None, gt=1, description="a bad token's ratio counts up to this (3); null: no bound")
    kl_weighted: bool = Field(False, description="multiply the KL by the ratio: its gradient is right off-policy too")


def wanted(needs: frozenset[str], options: Reference) -> frozenset[str]:
    """Without a KL term no reference is wanted: a third of the forward passes."""
    return needs if options.beta else needs - {"reference"}


def log_ratio(batch: Batch) -> Tensor:
    """log ρ of each own token, 0 elsewhere; (B, T), nats."""
    return own(batch.logprobs_BT, batch) - own(batch.old_BT, batch)


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
    """What each own token gains, min(ρA, clip(ρ)A) − β·KL, 0 elsewhere, (B, T); to be averaged as an objective likes."""
    ratio_BT, advantages_BT = log_ratio(batch).exp(), own(batch.advantages_BT, batch)
    penalty_BT, metrics = penalty(batch, options, ratio_BT if options.kl_weighted else None)
    bites_BT = clip_bites(ratio_BT, advantages_BT, options)
    metrics |= {"clip_fraction": mean(bites_BT, batch), "ratio_mean": mean(ratio_BT, batch)}
    return clipped(ratio_BT, advantages_BT, options) - penalty_BT, metrics


def penalty(batch: Batch, options: Reference, weight_BT: Tensor | None = None) -> tuple[Tensor, dict[str, float]]:
    """β·KL of each own token, (B, T), 0 with β = 0; `weight_BT` is ρ where the KL is weighted. The KL is a metric, if known."""
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
