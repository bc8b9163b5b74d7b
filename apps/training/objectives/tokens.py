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
