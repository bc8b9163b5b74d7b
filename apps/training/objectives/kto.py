"""KTO: each completion by itself is desirable or not; no pairs are needed.

λ_w(1 − σ(β(r − z))) for a desirable row and λ_l(1 − σ(β(z − r))) for another, mean over the rows of the step, with
r = logp_θ(y) − logp_ref(y), summed over own tokens, and z = max(0, mean over the step of logp_θ − logp_ref of completions
under *other* rows' prompts), without gradient. Source: arXiv 2402.01306, eqs. 7 and 8 and section 3.2; β = .1 and
λ_w = λ_l = 1 as published. Where n_w and n_l differ much, λ_w·n_w / (λ_l·n_l) should be between 1 and 4/3.

A row is desirable where its advantage is positive, so the estimator says what counts as good: the values of many credit
methods are never negative, and by their own sign a failure would be no undesirable row but none at all. Only the sign
counts. The paper, and TRL, estimate z from each micro-batch; here one z serves the whole step, so that splitting it
changes nothing. Estimated from the rows' own prompts, z would be r's own mean: no row could be on average better.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from apps import records
from apps.training.batch import Batch
from apps.training.objectives.pairs import ratios
from apps.training.objectives.tokens import worth

if TYPE_CHECKING:
    from torch import Tensor

NEEDS: frozenset[str] = frozenset({"reference", "advantages", "mismatch"})


class Options(records.Options):
    """How averse to risk, and to loss."""

    beta: float = Field(0.1, gt=0, description="steepness: how soon a gain is large enough")
    desirable: float = Field(1.0, ge=0, description="lambda_w, weight of desirable rows")
    undesirable: float = Field(1.0, ge=0, description="lambda_l, weight of undesirable rows")


def loss(batch: Batch, options: Options) -> tuple[Tensor, dict[str, float]]:
    """A scalar between 0 and the larger weight, to be summed over micro-batches; a row without advantage gives none."""
    sign_B = worth(batch).sign()
    weight_B = options.desirable * sign_B.clamp(min=0) + options.undesirable * (-sign_B).clamp(min=0)
    reference_point = max(0.0, batch.mismatch)
    gain_B = options.beta * sign_B * (ratios(batch) - reference_point)
    metrics = {
        "reference_point": reference_point * len(sign_B) / batch.sequences,
        "gain": float(gain_B.detach().sum()) / batch.sequences,
        "desirable": float((sign_B > 0).sum()) / batch.sequences,
    }
    return (weight_B * (-gain_B).sigmoid()).sum() / batch.sequences, metrics
