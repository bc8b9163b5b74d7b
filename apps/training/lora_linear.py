"""A linear layer with a LoRA adapter as one operation: y = x Wᵀ + s (x Aᵀ) Bᵀ (arXiv 2106.09685, eq. 3).

PEFT writes the same as five operations, each of which passes over all outputs and keeps some for the gradient. Here the
adapter's product is accumulated into the layer's, forward and backward, and just x and x Aᵀ are kept. W is frozen.

Layers that are anything else stay PEFT's: DoRA, 4-bit weights, dropout, an adapter that is switched off or merged. So do weights
that are divided among ranks (ZeRO-3), which are fetched when their own module is called.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


def quicken(model: nn.Module) -> int:
    """Lets every plain LoRA layer of a PEFT model compute so; returns how many there are."""
    from peft.tuners.lora.layer import Linear

    layers = [layer for layer in model.modules() if type(layer) is Linear and plain(layer)]
    for layer in layers:
        layer.forward = _Quick(layer, layer.forward)
    return len(layers)


def plain(layer: Any) -> bool:
    """Whether a PEFT layer does what this file's operation does."""
    from torch import nn

    (name, *others) = layer.active_adapters
    return (
        not others
        and type(layer.base_layer) is nn.Linear
        and not layer.base_layer.weight.requires_grad
        and isinstance(layer.lora_dropout[name], nn.Identity)
        and name not in layer.lora_variant
        and not layer.lora_bias[name]
    )


class _Quick:
    """Stands in a layer's `forward`; asks the layer's own where the adapter is off or merged."""

    def __init__(self, layer: Any, usual: Any) -> None:
        self.layer, self.usual = layer, usual

    def __call__(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        layer = self.layer
        if layer.disable_adapters or layer.merged or args or kwargs:
            return self.usual(x, *args, **kwargs)
        (name,) = layer.active_adapters
        a, b, base = layer.lora_A[name].weight, layer.lora_B[name].weight, layer.base_layer
        return operation().apply(x, base.weight, base.bias, a, b, layer.scaling[name])


@cache
def operation() -> Any:
    """The operation: (x (…, in), W (out, in), bias (out,) or None, A (r, in), B (out, r), s) -> (…, out)."""
    import torch
    from torch.nn.functional import linear

    class LoraLinear(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, weight, bias, a, b, scale):
            kind = x.device.type
            coarse = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
            with torch.autocast(kind, enabled=False):
                x, weight, a_, b_ = (tensor.to(coarse) for tensor in (x, weight, a, b))
                flat = x.reshape(-1, x.shape[-1])
                low = flat @ a_.T
                y = linear(flat, weight, None if bias is None else bias.to(coarse)).addmm_(low, b_.T, alpha=scale)
            ctx.save_for_backward(flat, low, weight, a_, b_)
            ctx.scale, ctx.shape = scale, x.shape
            return y.view(*x.shape[:-1], -1)

        @staticmethod
        def backward(ctx, gradient):
            flat, low, weight, a, b = ctx.saved_tensors
            wanted = ctx.needs_input_grad
            g = gradient.reshape(-1, gradient.shape[-1]).to(weight.dtype)
            low_g = (g @ b).mul_(ctx.scale)
            x_g = (g @ weight).addmm_(low_g, a).view(ctx.shape) if wanted[0] else None
            a_g = low_g.T @ flat if wanted[3] else None
            b_g = (g.T @ low).mul_(ctx.scale) if wanted[4] else None
            return x_g, None, None, a_g, b_g, None

    return LoraLinear
