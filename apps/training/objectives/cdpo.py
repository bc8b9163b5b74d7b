"""Conservative DPO: preferences that are wrong with a known probability, so that no margin grows without end.

−(1 − ε) logσ(βΔ) − ε logσ(−βΔ) a pair, mean over the pairs of the step; Δ as in DPO, of summed log-probabilities.
Its minimum is at σ(βΔ) = 1 − ε, where DPO has none. Source: E. Mitchell, "A note on DPO with noisy preferences and
relationship to IPO" (2023), which has no arXiv number; the same loss is the baseline of arXiv 2403.00409.

TRL has it as `label_smoothing` of its DPO, 0 by default, which is DPO; here ε = .1, as a cDPO without ε would be DPO
under a second name. Not TRL's `robust` (2403.00409), which subtracts the second term and divides by 1 − 2ε.
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
    """How strongly the reference holds, and how far preferences are trusted."""

    beta: float = Field(0.1, gt=0, description="strength of the pull to the reference")
    epsilon: float = Field(0.1, ge=0, lt=0.5, description="probability that a preference is the wrong way round")


def loss(batch: Batch, options: Options) -> tuple[Tensor, dict[str, float]]:
    """A scalar in nats a pair, to be summed over micro-batches."""
    from torch.nn.functional import logsigmoid

    margin_P = options.beta * delta(batch)
    value_P = (1 - options.epsilon) * logsigmoid(margin_P) + options.epsilon * logsigmoid(-margin_P)
    return -value_P.sum() / batch.pairs, summary(margin_P, batch)
