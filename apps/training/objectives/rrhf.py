"""RRHF: rank all candidates of a state by their mean log-probability, and learn the best one.

Σ_{v_i < v_j} max(0, p_i − p_j) − λ logp_best a state, mean over the states of the step; p = mean logp over a candidate's own
tokens, logp_best summed, v the candidates' values. Source: arXiv 2304.05302, section 3.1; λ = 1 as published. Pairs are not
enough: the sum is over all candidates of a state, which therefore stay in one micro-batch. No reference model.

The ranking term has no margin: equal p give no gradient. Several best candidates share the likelihood term, so that
their order does not matter. The authors' code weighs the ranking term 100 and takes logp_best as a mean over the padded
row: far less likelihood than the paper's formula; λ = .01 comes near it. The metric `disorder` is the ranking
term, `nll` nats a sequence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from apps import records
from apps.training.batch import Batch
from apps.training.objectives.pairs import means, sums
from apps.training.objectives.tokens import worth

if TYPE_CHECKING:
    from torch import Tensor

NEEDS: frozenset[str] = frozenset({"states", "advantages"})


class Options(records.Options):
    """What holds the policy."""

    weight: float = Field(1.0, ge=0, description="lambda, weight of the best candidate's likelihood")


def loss(batch: Batch, options: Options) -> tuple[Tensor, dict[str, float]]:
    """A scalar in nats a state, to be summed over micro-batches."""
    value_B, together_BB = worth(batch), batch.state_B[:, None] == batch.state_B[None, :]
    mean_B = means(batch.logprobs_BT, batch)
    worse_BB = together_BB & (value_B[:, None] < value_B[None, :])  # row i is worse than row j
    disorder = ((mean_B[:, None] - mean_B[None, :]).clamp(min=0) * worse_BB).sum() / batch.states
    best_B = ~worse_BB.any(dim=1)
    sharing_B = (together_BB & best_B[None, :]).sum(dim=1)
    nll = -(best_B * sums(batch.logprobs_BT, batch) / sharing_B).sum() / batch.states
    return disorder + options.weight * nll, {"disorder": float(disorder.detach()), "nll": float(nll.detach())}
