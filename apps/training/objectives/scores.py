"""What objectives of a scalar head share: the score of a row, and cross-entropy against what it is taught. Not an objective."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apps.training.batch import Batch

if TYPE_CHECKING:
    from torch import Tensor


def last(values_BT: Tensor, batch: Batch) -> Tensor:
    """What stands at each row's last own token, (B,); 0 for a row without any."""
    import torch

    own_BT = batch.mask_BT != 0
    places_T = torch.arange(own_BT.shape[1], device=own_BT.device)
    place_B1 = torch.where(own_BT, places_T, -1).amax(dim=1, keepdim=True)
    found_B = values_BT.gather(1, place_B1.clamp(min=0)).squeeze(1)
    return torch.where(place_B1.squeeze(1) >= 0, found_B, torch.zeros_like(found_B))


def cross_entropy(scores: Tensor, targets: Tensor) -> Tensor:
    """−y log σ(s) − (1 − y) log(1 − σ(s)) in nats, 0 where there is no target (NaN); targets lie in [0, 1]."""
    from torch.nn.functional import binary_cross_entropy_with_logits

    # The gradient of what is filled is 0, where 0 times what stands beside a NaN is NaN.
    known = targets.isfinite()
    safe = scores.masked_fill(~known, 0.0)
    return binary_cross_entropy_with_logits(safe, targets, reduction="none").masked_fill(~known, 0.0)


def told_right(scores: Tensor, targets: Tensor) -> Tensor:
    """1 where the score is on the target's side of even odds, 0 elsewhere and where there is no target."""
    return (((scores.detach() > 0) == (targets > 0.5)) & targets.isfinite()).to(scores.dtype)
