"""One adapter added to the weights, for batches that a single policy has to itself: one product a layer and not three.

The weights of before are kept and put back as they were, to the last bit. In float32 alone: a coarser dtype would round away
what a young adapter changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from apps.inference.adapter import Update, check_shape, gain, layer_of

if TYPE_CHECKING:
    from torch import Tensor, nn

GIB = 2**30


class Merged:
    """The adapter that the weights of `model` hold at the moment; `digest` is None where it is none."""

    def __init__(self, model: nn.Module, limit_gib: float) -> None:
        self.model, self.limit_gib = model, limit_gib
        self.digest: str | None = None
        self._before: dict[nn.Module, nn.Parameter] = {}

    def takes(self, updates: Mapping[str, Update]) -> bool:
        """Whether an adapter can be added: to plain float32 layers, whose second copy is within the limit."""
        from torch import float32, nn

        layers = [layer_of(self.model, name) for name in updates]
        plain = all(type(layer) is nn.Linear and layer.weight.dtype == float32 for layer in layers)
        return plain and sum(layer.weight.nbytes for layer in layers) <= self.limit_gib * GIB

    def put(self, digest: str, updates: Mapping[str, Update]) -> None:
        """Adds an adapter; another one is taken back first."""
        from torch import nn

        if digest == self.digest:
            return
        self.take_back()
        for name, update in updates.items():
            layer = layer_of(self.model, name)
            check_shape(layer, name, update)
            self._before[layer] = layer.weight  # where that is tied to another layer's, the other stays what it is
            layer.weight = nn.Parameter(moved(layer, update), requires_grad=False)
        self.digest = digest

    def take_back(self) -> None:
        for layer, weight in self._before.items():
            layer.weight = weight
        self.digest, self._before = None, {}


def moved(layer: nn.Linear, update: Update) -> Tensor:
    """The weights (out, in) of a layer with an update in them: W + (A B)ᵀ, times DoRA's gain on each output."""
    weight = layer.weight + (update.a @ update.b).T
    return weight if update.magnitude is None else weight * gain(layer, update)[:, None]
