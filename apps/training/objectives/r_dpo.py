"""Length-regularised DPO: a preferred completion that is merely longer is pushed less.

−logσ(βΔ + α(|y_w| − |y_l|)) a pair, mean over the pairs of the step; Δ as in DPO and |y| a completion's own tokens.
Source: arXiv 2403.19159. The sign: a longer winner raises the argument, which lessens its gradient; a shorter winner is
pushed more. The term is a constant of the data: it weighs pairs and has no gradient of its own.

β = .1 is that of DPO. α is tuned by task and has to fit its lengths: α·(|y_w| − |y_l|) and βΔ should be of like size; .01
fits differences of some ten to a hundred tokens. The metrics are of βΔ alone, so that they compare with DPO's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from apps import records
from apps.training.batch import Batch
from apps.training.objectives.pairs import delta, difference, lengths, summary

if TYPE_CHECKING:
    from torch import Tensor

NEEDS: frozenset[str] = frozenset({"reference", "pairs"})


class Options(records.Options):
    """How strongly the reference holds, and how much length is discounted."""

    beta: float = Field(0.1, gt=0, description="strength of the pull to the reference")
    alpha: float = Field(0.01, ge=0, description="discount for each token by which the preferred is longer")


def loss(batch: Batch, options: Options) -> tuple[Tensor, dict[str, float]]:
    """A scalar in nats a pair, to be summed over micro-batches."""
    from torch.nn.functional import logsigmoid

    margin_P = options.beta * delta(batch)
    longer_P = difference(lengths(batch))
    return -logsigmoid(margin_P + options.alpha * longer_P).sum() / batch.pairs, summary(margin_P, batch)
