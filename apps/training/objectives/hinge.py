"""Hinge loss on DPO's margin: a pair that is apart by enough gives no gradient.

max(0, 1 − βΔ) a pair, mean over the pairs of the step; Δ as in DPO, of summed log-probabilities. Source: arXiv
2309.06657 (RSO), which names it hinge-norm; β is its γ. TRL has it as DPO's `hinge`.

Not SLiC-HF (`slic_hf`), for which it is often taken: that one knows no reference and adds a likelihood term. Not RSO as
a whole, of which the sampling of pairs by rejection is the other half. β = .1 is that of DPO.
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
    """How far apart is enough."""

    beta: float = Field(0.1, gt=0, description="a pair gives no gradient once its margin is 1 / beta nats")


def loss(batch: Batch, options: Options) -> tuple[Tensor, dict[str, float]]:
    """A scalar without unit, to be summed over micro-batches."""
    margin_P = options.beta * delta(batch)
    return (1 - margin_P).clamp(min=0).sum() / batch.pairs, summary(margin_P, batch)
