"""Odds-ratio preference optimisation: supervised fine-tuning with a penalty on the rejected completion's odds.

−logp_w/|y_w| − λ logσ(log odds_w − log odds_l) a pair, mean over the pairs of the step, with odds = P/(1 − P) and
P = exp(mean logp over a completion's own tokens). Source: arXiv 2403.07691, eqs. 3 to 7; λ = .1, which the paper gives
its Mistral. No reference model. The metric `margin` is the log odds ratio, `nll` nats a token.

log(1 − P) is taken in a form that loses no digits on either side, and P is held below 1 by the dtype's precision:
near P = 1 the plain form is log 0 in float32. In TRL λ is named `beta`, its likelihood term spans the prompt too, and it
is a mean over the tokens of the micro-batch; here prompts carry no loss and each pair counts the same.
"""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING

from pydantic import Field

from apps import records
from apps.training.batch import Batch
from apps.training.objectives.pairs import difference, halves, means, summary

if TYPE_CHECKING:
    from torch import Tensor

NEEDS: frozenset[str] = frozenset({"pairs"})


class Options(records.Options):
    """How much the preference weighs beside the likelihood."""

    weight: float = Field(0.1, ge=0, description="lambda, weight of the odds ratio")


def loss(batch: Batch, options: Options) -> tuple[Tensor, dict[str, float]]:
    """A scalar in nats a token, to be summed over micro-batches."""
    from torch.nn.functional import logsigmoid

    mean_B = means(batch.logprobs_BT, batch)
    margin_P, preferred_P = difference(log_odds(mean_B)), halves(mean_B)[0]
    value = -preferred_P.sum() - options.weight * logsigmoid(margin_P).sum()
    nll = -float(preferred_P.detach().sum()) / batch.pairs
    return value / batch.pairs, {**summary(margin_P, batch), "nll": nll}


def log_odds(logp_B: Tensor) -> Tensor:
    """log P − log(1 − P) of P = exp(logp), finite up to logp = 0; (B,)."""
    import torch

    logp_B = logp_B.clamp(max=-torch.finfo(logp_B.dtype).eps)
    return logp_B - log1mexp(logp_B)


def log1mexp(x_B: Tensor) -> Tensor:
    """log(1 − e^x) for x < 0: expm1 where e^x is near 1, log1p where it is near 0 (Mächler 2012)."""
    import torch

    return torch.where(x_B > -log(2), (-x_B.expm1()).log(), (-x_B.exp()).log1p())
