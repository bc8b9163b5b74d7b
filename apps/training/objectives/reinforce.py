"""REINFORCE: every own token is made likelier in proportion to its advantage.

−Σ A logp / Σ m, plus β · KL, over all own tokens of the whole step. Source: Williams 1992 (10.1007/BF00992696), whose
estimator sums over an episode's tokens and averages over episodes: dividing by the step's tokens instead changes the
length of a step's gradient and not its direction. A baseline belongs to the advantage, not to this file (`rloo`,
`reinforce_plus_plus`).

The samples have to be the trained policy's own. After the first optimiser step of a round they are an older policy's,
which nothing here corrects: take `ppo` or `cispo`, or one step a round. What the *engine* does otherwise than the trainer
can be corrected (`truncation`). Its value is no measure of progress.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from apps.training.batch import Batch
from apps.training.objectives import policy_gradient
from apps.training.objectives.tokens import own

if TYPE_CHECKING:
    from torch import Tensor

NEEDS: frozenset[str] = frozenset({"reference", "advantages"})


class Options(policy_gradient.Reference):
    """How strongly the reference holds."""


def needs(options: Options) -> frozenset[str]:
    """What a batch has to carry with these options."""
    return policy_gradient.wanted(NEEDS, options)


def loss(batch: Batch, options: Options) -> tuple[Tensor, dict[str, float]]:
    """A scalar, to be summed over micro-batches."""
    penalty_BT, metrics = policy_gradient.penalty(batch, options)
    plain_BT = own(batch.advantages_BT, batch) * own(batch.logprobs_BT, batch)
    gain_BT, figures = policy_gradient.corrected(plain_BT, penalty_BT, batch, options)
    return -gain_BT.sum() / batch.tokens, metrics | figures
