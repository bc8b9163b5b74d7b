"""A process reward model: the scalar head learns after each step of a completion how good the work is so far.

Cross-entropy of σ(r) against the step's label in [0, 1], the target at the step's last token, mean over the steps of the whole
step of the optimiser; the batch builder masks all tokens but those, so that own tokens are steps. Source: arXiv 2305.20050,
section 2.6 (one label at the last token of each step; there human labels, and a text's word in place of a head); soft labels are
shares of plays that go on from a step and end right, as in arXiv 2312.08935. An own token without a target (NaN) counts as a step
without loss. Not the reward model of `credit.process_reward` with `by: word`, which fine-tunes the log-probability of a word and reads each step anew; this
one reads a play once and scores all of its steps. Metrics add up over micro-batches as the loss does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from apps import records
from apps.training.batch import Batch
from apps.training.objectives.scores import cross_entropy, told_right
from apps.training.objectives.tokens import own

if TYPE_CHECKING:
    from torch import Tensor

NEEDS: frozenset[str] = frozenset({"scores", "targets"})


class Options(records.Options):
    """There is nothing to set."""


def loss(batch: Batch, options: Options) -> tuple[Tensor, dict[str, float]]:
    """A scalar in nats a step, to be summed over micro-batches."""
    scores_BT = own(batch.scores_BT, batch)
    steps_BT = own(cross_entropy(scores_BT, batch.targets_BT), batch)
    right_BT = own(told_right(scores_BT, batch.targets_BT), batch)
    return steps_BT.sum() / batch.tokens, {"accuracy": float(right_BT.sum()) / batch.tokens}
