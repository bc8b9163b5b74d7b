"""Bradley–Terry: a reward model's scalar head learns to score the preferred completion above the rejected one.

−logσ(r_w − r_l − m) + c (r_w + r_l)² a pair, mean over the pairs of the whole step, with r the head's score at a
completion's last token. Source: arXiv 2203.02155, eq. 1 (m = 0, c = 0; its mean over all pairs of one prompt is what a mean
over pairs becomes where every prompt has as many). The margin m is the pair's own, the target at the last token of the preferred
completion, times `margin`; none where that is NaN: arXiv 2307.09288, eq. 2, where it grows with how clearly annotators preferred.
Differences alone say nothing of a reward's zero: `centring` draws each pair's rewards to a mean of 0 (arXiv 2312.09244; c is
TRL's `center_rewards_coefficient`, off there, and .01 where its documentation turns it on). Not a policy's loss: DPO compares
log-probabilities. Metrics add up over micro-batches as the loss does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from apps import records
from apps.training.batch import Batch
from apps.training.objectives.pairs import halves, summary
from apps.training.objectives.scores import last

if TYPE_CHECKING:
    from torch import Tensor

NEEDS: frozenset[str] = frozenset({"pairs", "scores", "targets"})


class Options(records.Options):
    """What a pair's margin counts, and how strongly rewards are held around 0."""

    margin: float = Field(1.0, ge=0, description="weight of the margins that pairs bring; 0 ignores them")
    centring: float = Field(0.01, ge=0, description="weight of the squared sum of a pair's rewards")


def loss(batch: Batch, options: Options) -> tuple[Tensor, dict[str, float]]:
    """A scalar in nats a pair, to be summed over micro-batches."""
    from torch.nn.functional import logsigmoid

    won_P, lost_P = halves(last(batch.scores_BT, batch))
    margin_P = halves(last(batch.targets_BT, batch))[0].nan_to_num(nan=0.0)
    losses_P = -logsigmoid(won_P - lost_P - options.margin * margin_P) + options.centring * (won_P + lost_P) ** 2
    reward = float((won_P + lost_P).detach().sum()) / (2 * batch.pairs)
    return losses_P.sum() / batch.pairs, {**summary(won_P - lost_P, batch), "reward": reward}
