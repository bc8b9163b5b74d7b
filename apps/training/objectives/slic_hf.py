"""SLiC-HF: rank the preferred completion above the rejected one by a margin, and keep it likely.

max(0, δ − logp_w + logp_l) − λ logp_w a pair, mean over the pairs of the step; logp summed over a completion's own
tokens. Source: arXiv 2305.10425, eq. 1, whose regularisation target y_ref is here the preferred completion. There is no
reference model: the likelihood term holds the policy.

What TRL calls `hinge` is not this but `hinge`: no likelihood term, and a margin against the reference. The paper
regularises towards the targets of its supervised fine-tuning (or the best-ranked candidate); with another target the
term is another. δ = 1 and λ = .5 are settings to start from: summed log-probabilities grow with length, so that the
margin is nothing to a long completion.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from apps import records
from apps.training.batch import Batch
from apps.training.objectives.pairs import difference, halves, summary, sums

if TYPE_CHECKING:
    from torch import Tensor

NEEDS: frozenset[str] = frozenset({"pairs"})


class Options(records.Options):
    """The margin, and what holds the policy."""

    delta: float = Field(1.0, gt=0, description="margin wanted, nats a sequence")
    weight: float = Field(0.5, ge=0, description="lambda, weight of the preferred completion's likelihood")


def loss(batch: Batch, options: Options) -> tuple[Tensor, dict[str, float]]:
    """A scalar in nats a pair, to be summed over micro-batches."""
    logp_B = sums(batch.logprobs_BT, batch)
    margin_P, preferred_P = difference(logp_B), halves(logp_B)[0]
    value = (options.delta - margin_P).clamp(min=0).sum() - options.weight * preferred_P.sum()
    nll = -float(preferred_P.detach().sum()) / batch.pairs
    return value / batch.pairs, {**summary(margin_P, batch), "nll": nll}
