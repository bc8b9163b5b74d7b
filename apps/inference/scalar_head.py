"""Reads the scalar head of a reward or value model: one number after each token, w · h + b, of the last layer's state h.

It lies beside the adapter, or in the folder of a whole model, as safetensors with `weight` (1, H) and `bias` (1,).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from apps.records import MeritError

if TYPE_CHECKING:
    from torch import Tensor

FILE = "scalar_head.safetensors"


def read(folder: Path, width: int, device: str) -> tuple[Tensor, Tensor]:
    """Weight (H,) and bias (), float32; `width` is the model's H."""
    from safetensors.torch import load_file

    if not (folder / FILE).is_file():
        raise MeritError(
            f"{folder}: no reward model with a scalar head (there is no {FILE} in it); `python workflows/run.py reward_model` "
            "trains one. A model that judges by words is read with by=word or by=reply"
        )
    kept = load_file(folder / FILE, device=device)
    if tuple(kept["weight"].shape) != (1, width):
        raise MeritError(
            f"{folder / FILE}: a head for states of width {kept['weight'].shape[-1]} on a model of width {width}; give the "
            "base model that the reward model was trained on"
        )
    return kept["weight"][0].float(), kept["bias"][0].float()


def apply(hidden_BTH: Tensor, head: tuple[Tensor, Tensor]) -> Tensor:
    """(B, T), float32."""
    return hidden_BTH.float() @ head[0] + head[1]
