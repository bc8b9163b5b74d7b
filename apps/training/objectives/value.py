"""A value model's regression on returns, clipped about what it said when the tokens were sampled: the value loss of PPO.

½ Σ max((V − R)², (V_old + clip(V − V_old, −ε, ε) − R)²) / Σ m over the agent's own tokens of the whole step. V is the scalar
head *before* a token, R its return. Source: the code of arXiv 1707.06347 (its eq. 9 has (V − R)²), used by arXiv 2203.02155;
ε = .2 there; `clip=null` is plain regression. Tokens without a return (NaN) have no loss, but count in Σ m.

A value model is a policy of its own here, with its own optimiser: PPO's c_v, the weight of this loss in a sum with the
policy's, has nothing to weigh. `clip_fraction` is the share of tokens whose clipped error is the larger one: they have no
gradient where V has left the bound. `error` is the mean of (V − R)², `value_mean` and `return_mean` what they say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from apps import records
from apps.training.batch import Batch

if TYPE_CHECKING:
    from torch import Tensor

NEEDS: frozenset[str] = frozenset({"values", "targets", "old_values"})


class Options(records.Options):
    """How far a step may go."""

    clip: float | None = Field(0.2, gt=0, description="ε: how far V may leave what it said at sampling; null: anywhere")


def needs(options: Options) -> frozenset[str]:
    """What a batch has to carry with these options."""
    return NEEDS if options.clip else NEEDS - {"old_values"}


def loss(batch: Batch, options: Options) -> tuple[Tensor, dict[str, float]]:
    """A scalar, in squared units of credit a token, to be summed over micro-batches."""
    taught_BT = (batch.mask_BT != 0) & ~batch.targets_BT.isnan()
    values_BT, returns_BT = (x.masked_fill(~taught_BT, 0.0) for x in (batch.values_BT, batch.targets_BT))
    plain_BT = worst_BT = (values_BT - returns_BT).square()
    if options.clip:
        old_BT = batch.old_values_BT.masked_fill(~taught_BT, 0.0)
        near_BT = old_BT + (values_BT - old_BT).clamp(-options.clip, options.clip)
        worst_BT = plain_BT.maximum((near_BT - returns_BT).square())
    figures = {
        "clip_fraction": (worst_BT > plain_BT).to(plain_BT.dtype),
        "error": plain_BT,
        "value_mean": values_BT,
        "return_mean": returns_BT,
    }
    metrics = {name: float(figure.detach().sum()) / batch.tokens for name, figure in figures.items()}
    return worst_BT.sum() / (2 * batch.tokens), metrics
