"""What objectives do to tokens before any formula: keep the agent's own, forget the rest. Not an objective."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apps.training.batch import Batch

if TYPE_CHECKING:
    from torch import Tensor


def own(values_BT: Tensor, batch: Batch) -> Tensor:
    """(B, T) with 0 where the mask is 0."""
    # Filled, not multiplied: padding may hold −inf or NaN, whose product with 0 is NaN.
    return values_BT.masked_fill(batch.mask_BT == 0, 0.0)


def worth(batch: Batch) -> Tensor:
    """The advantage of each row, (B,): that of its first own token, as rows have one for all their tokens."""
    first_B1 = (batch.mask_BT != 0).long().argmax(dim=1, keepdim=True)
    return batch.advantages_BT.gather(1, first_B1).squeeze(1)
