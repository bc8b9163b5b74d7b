"""An outcome reward model: the scalar head learns how likely a completion is right, from how it turned out.

Cross-entropy of σ(r) against the completion's outcome in [0, 1], its target at the last token, mean over the rows of the
whole step. Source: arXiv 2110.14168, section 4.2 (a verifier that learns whether a solution's answer was right); the score at the
last token is what arXiv 2305.20050 reads. `tokens: all` teaches the head the same outcome after *every* own token, mean over the
tokens of the step: the first paper's token-level verifier, which it found to overfit less; its language-modelling term is left
out, as is its dropout. A row whose target is NaN teaches nothing. Metrics add up over micro-batches as the loss does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from apps import records
from apps.training.batch import Batch
from apps.training.objectives.scores import cross_entropy, last, told_right
from apps.training.objectives.tokens import own

if TYPE_CHECKING:
    from torch import Tensor

NEEDS: frozenset[str] = frozenset({"scores", "targets"})


class Options(records.Options):
    """Where the head is taught."""

    tokens: Literal["last", "all"] = Field("last", description="after the last token, or after every own token")


def loss(batch: Batch, options: Options) -> tuple[Tensor, dict[str, float]]:
    """A scalar in nats a row (nats a token with `all`), to be summed over micro-batches."""
    score_B, outcome_B = last(batch.scores_BT, batch), last(batch.targets_BT, batch)
    metrics = {
        "accuracy": float(told_right(score_B, outcome_B).sum()) / batch.sequences,
        "reward": float(score_B.detach().sum()) / batch.sequences,
    }
    if options.tokens == "last":
        return cross_entropy(score_B, outcome_B).sum() / batch.sequences, metrics
    everywhere_BT = outcome_B[:, None].expand_as(batch.scores_BT)
    return own(cross_entropy(own(batch.scores_BT, batch), everywhere_BT), batch).sum() / batch.tokens, metrics
