"""One adapter in PEFT format, as it lies in its folder, and what it does to each linear layer: LoRA, rsLoRA or DoRA.

DoRA (arXiv 2402.09353, eq. 5) scales each output besides, but not its bias: by m / ||W + s B A||, the norm over inputs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apps import weights
from apps.records import MeritError

if TYPE_CHECKING:
    from torch import Tensor, nn

PREFIX = "base_model.model."
BASE = "base.json"  # beside an adapter: what it was made for; another trainer's has none
A, B, MAGNITUDE = ".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector"  # what PEFT calls an adapter's tensors


@dataclass(frozen=True, slots=True, eq=False)
class Update:
    """What an adapter does to one linear layer."""

    a: Tensor  # (in, r)
    b: Tensor  # (r, out), times the adapter's scale
    magnitude: Tensor | None = None  # (out,), DoRA's m; None: the norms of the layer's outputs are left as they come


def gain(module: nn.Module, update: Update) -> Tensor:
    """DoRA's m / ||W + s B A|| of each output (out,), in the dtype of the update; norms are worked out in float32."""
    moved = _weight(module).float() + (update.a.float() @ update.b.float()).T
    return (update.magnitude.float() / moved.norm(dim=1)).to(update.a)


def _weight(module: nn.Module) -> Tensor:
    """A linear layer's weights (out, in), also where they are kept in 4 bits."""
    if hasattr(module.weight, "quant_state"):
        from peft.utils.integrations import dequantize_module_weight

        return dequantize_module_weight(module)
    return module.weight


def layer_of(model: nn.Module, name: str) -> nn.Module:
    """The layer that an adapter calls so; MeritError where the model has none."""
    try:
        return model.get_submodule(name)
    except AttributeError as error:
        raise MeritError(f"an adapter is for another model: this one has no layer {name!r}") from error


def check_shape(module: nn.Module, name: str, update: Update) -> None:
    """MeritError where a layer has other numbers of inputs or outputs than the adapter was made for."""
    there = (getattr(module, "in_features", None), getattr(module, "out_features", None))
    wanted = (update.a.shape[0], update.b.shape[1])
    if None not in there and there != wanted:
        raise MeritError(
            f"an adapter is for another model: its layer {name!r} takes {wanted[0]} numbers and gives {wanted[1]}, that of "
            f"this model takes {there[0]} and gives {there[1]}"
        )


def check_base(folder: Path, vocabulary: int) -> None:
    """MeritError where an adapter was made for a model that knows another number of tokens. An older one does not say."""
    made_for = json.loads((folder / BASE).read_text()) if (folder / BASE).is_file() else {}
    if (its := made_for.get("vocabulary", vocabulary)) != vocabulary:
        raise MeritError(
            f"the adapter in {folder} was made for a base model with a vocabulary of {its} tokens, and this one's has "
            f"{vocabulary}: its ids would be other words. Give the base model that it was trained on"
        )


def read(folder: Path, like: Tensor) -> dict[str, Update]:
    """What an adapter does, by module, in the dtype of `like`."""
    from safetensors.torch import load_file

    weights.check_adapter(folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    if config.get("rank_pattern") or config.get("alpha_pattern"):
        raise MeritError(
            f"{folder}: rank and alpha patterns are not served by this engine; use one rank for all layers"
        )
    tensors = load_file(folder / "adapter_model.safetensors")
    if other := [key for key in tensors if not key.endswith((A, B, MAGNITUDE))]:
        raise MeritError(f"{folder}: {other[0]} is no LoRA matrix of a linear layer; this engine serves nothing else")
    names = [key.removesuffix(A) for key in tensors if key.endswith(A)]
    return {name.removeprefix(PREFIX): _update(tensors, name, _scale(config), like) for name in names}


def _update(tensors: Mapping[str, Tensor], name: str, scale: float, like: Tensor) -> Update:
    a, b, magnitude = tensors[name + A], tensors[name + B] * scale, tensors.get(name + MAGNITUDE)
    magnitude = None if magnitude is None else magnitude.to(like)
    return Update(a.T.contiguous().to(like), b.T.contiguous().to(like), magnitude)


def _scale(config: Mapping[str, Any]) -> float:
    rank = config["r"]
    return config["lora_alpha"] / (rank**0.5 if config.get("use_rslora") else rank)
