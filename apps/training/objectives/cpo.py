"""Contrastive preference optimisation: DPO without a reference model, held by a likelihood term.

−logσ(β(logp_w − logp_l)) − λ logp_w a pair, mean over the pairs of the step; logp summed over a completion's own tokens.
Source: arXiv 2401.08417, eq. 3; β = .1 and λ = 1 as published. The metric `nll` is nats a sequence.

TRL's likelihood term (`cpo_alpha`, 1 by default) is a mean over all tokens of the preferred half of a micro-batch, not
a sum over a completion: some |y_w| times weaker. Here a long completion's likelihood outweighs the preference.
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
    """How steep the preference is, and what holds the policy."""

    beta: float = Field(0.1, gt=0, description="steepness of the preference")
    weight: float = Field(1.0, ge=0, description="lambda, weight of the preferred completion's likelihood")


def loss(batch: Batch, options: Options) -> tuple[Tensor, dict[str, float]]:
    """A scalar in nats a pair, to be summed over micro-batches."""
    from torch.nn.functional import logsigmoid

    logp_B = sums(batch.logprobs_BT, batch)
    margin_P, preferred_P = options.beta * difference(logp_B), halves(logp_B)[0]
    value = -logsigmoid(margin_P).sum() - options.weight * preferred_P.sum()
    nll = -float(preferred_P.detach().sum()) / batch.pairs
    return value / batch.pairs, {**summary(margin_P, batch), "nll": nll}
