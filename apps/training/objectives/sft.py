"""Supervised fine-tuning: the mean negative log-likelihood of the agent's own tokens.

−Σ m logp / Σ m, with the sum of masks over the whole optimiser step; a mean of micro-batch means would be wrong under
accumulation. Metrics add up over micro-batches as the loss does. Not a weighted likelihood: which traces are learnt
from is the batch builder's choice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from apps import records
from apps.training.batch import Batch
from apps.training.objectives.tokens import own

if TYPE_CHECKING:
    from torch import Tensor

NEEDS: frozenset[str] = frozenset()


class Options(records.Options):
    """There is nothing to set."""


def loss(batch: Batch, options: Options) -> tuple[Tensor, dict[str, float]]:
    """A scalar in nats a token, to be summed over micro-batches."""
    nll = -own(batch.logprobs_BT, batch).sum() / batch.tokens
    return nll, {"nll": float(nll.detach())}
