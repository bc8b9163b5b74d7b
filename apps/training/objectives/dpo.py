"""Direct preference optimisation: push the preferred completion above the rejected one, against the reference.

−logσ(βΔ) a pair, mean over the pairs of the whole step, with Δ = [logp_θ − logp_ref](y_w) − [logp_θ − logp_ref](y_l)
and logp the *sum* over a completion's own tokens. Source: arXiv 2305.18290, eq. 7; β = .1 as published. Metrics add
up over micro-batches as the loss does. Left out: label smoothing (cDPO), length terms (R-DPO, SimPO).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from apps import records
from apps.training.batch import Batch
from apps.training.objectives.pairs import delta, summary

if TYPE_CHECKING:
    from torch import Tensor

NEEDS: frozenset[str] = frozenset({"reference", "pairs"})


class Options(records.Options):
    """How strongly the reference holds."""

    beta: float = Field(0.1, gt=0, description="strength of the pull to the reference")


def loss(batch: Batch, options: Options) -> tuple[Tensor, dict[str, float]]:
    """A scalar in nats a pair, to be summed over micro-batches."""
    from torch.nn.functional import logsigmoid

    margin_P = options.beta * delta(batch)
    return -logsigmoid(margin_P).sum() / batch.pairs, summary(margin_P, batch)
