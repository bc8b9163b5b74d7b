"""SimPO: DPO with mean log-probabilities in place of the reference, and a margin to be reached.

−logσ(β(mean_w − mean_l) − γ) a pair, mean over the pairs of the step; means over a completion's own tokens, so that length
is no advantage. Source: arXiv 2405.14734, eq. 6. β 2 to 2.5 and γ/β .3 to .55 as published: β = 2, γ = 1.
No reference model and no likelihood term: nothing holds the policy but the learning rate.

TRL has it as a loss of its CPO trainer, whose likelihood term is on by default (`cpo_alpha` = 1): SimPO is
`cpo_alpha` = 0. β is some twenty times DPO's, since means are that much smaller than sums.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from apps import records
from apps.training.batch import Batch
from apps.training.objectives.pairs import difference, means, summary

if TYPE_CHECKING:
    from torch import Tensor

NEEDS: frozenset[str] = frozenset({"pairs"})


class Options(records.Options):
    """How steep the preference is, and by how much the preferred should win."""

    beta: float = Field(2.0, gt=0, description="steepness, for nats a token")
    gamma: float = Field(1.0, ge=0, description="margin wanted, in units of beta times nats a token")


def loss(batch: Batch, options: Options) -> tuple[Tensor, dict[str, float]]:
    """A scalar in nats a pair, to be summed over micro-batches."""
    from torch.nn.functional import logsigmoid

    margin_P = options.beta * difference(means(batch.logprobs_BT, batch))
    return -logsigmoid(margin_P - options.gamma).sum() / batch.pairs, summary(margin_P, batch)
