"""What preference objectives read of a batch: sums and means of rows, and the two halves of pairs. Not an objective."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apps.training.batch import Batch
from apps.training.objectives.tokens import own

if TYPE_CHECKING:
    from torch import Tensor


def sums(values_BT: Tensor, batch: Batch) -> Tensor:
    """The sum over each row's own tokens, (B,)."""
    return own(values_BT, batch).sum(dim=1)


def lengths(batch: Batch) -> Tensor:
    """|y|, own tokens of each row, (B,)."""
    return batch.mask_BT.to(batch.logprobs_BT.dtype).sum(dim=1)


def means(values_BT: Tensor, batch: Batch) -> Tensor:
    """The mean over each row's own tokens, (B,); 0 for a row without any."""
    return sums(values_BT, batch) / lengths(batch).clamp(min=1)


def ratios(batch: Batch) -> Tensor:
    """logp_θ(y) − logp_ref(y) of each row, (B,), nats a sequence."""
    return sums(batch.logprobs_BT, batch) - sums(batch.reference_BT, batch)


def halves(values_B: Tensor) -> tuple[Tensor, Tensor]:
    """The values of the preferred rows and of the rejected ones, (P,) each."""
    if len(values_B) % 2:
        raise ValueError(f"rows come in pairs; a micro-batch of {len(values_B)} rows splits one")
    return values_B[0::2], values_B[1::2]


def difference(values_B: Tensor) -> Tensor:
    """Preferred less rejected, (P,)."""
    preferred_P, rejected_P = halves(values_B)
    return preferred_P - rejected_P


def delta(batch: Batch) -> Tensor:
    """Δ of each pair, (P,), in nats: how much more than the reference the policy prefers the preferred."""
    return difference(ratios(batch))


def summary(margin_P: Tensor, batch: Batch) -> dict[str, float]:
    """This micro-batch's share of the mean margin, and of the pairs that the policy orders right."""
    margin_P = margin_P.detach()
    return {
        "margin": float(margin_P.sum()) / batch.pairs,
        "pair_accuracy": float((margin_P > 0).sum()) / batch.pairs,
    }
