"""Several adapters on one base model in one batch: each row of the batch has its own. LoRA, rsLoRA and DoRA.

PEFT's own way (`adapter_names`) loops over the adapters in every layer, which at this size costs more than it
saves. Here the adapters' A matrices stand side by side, one product serves all rows, and a mask keeps of each row only
the columns of its own adapter: y = W x + ((x A_all) * mask) B_all. Exact: what is masked adds zeros.

DoRA (arXiv 2402.09353, eq. 5) scales each output of a row besides, but not its bias: by m / ||W + s B A||, the norm over
inputs. What it is follows from the weights alone, so it is worked out once, when the adapters of a batch change.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apps.records import MeritError

if TYPE_CHECKING:
    from torch import Tensor, nn

PREFIX = "base_model.model."
A, B, MAGNITUDE = ".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector"  # what PEFT calls an adapter's tensors


@dataclass(frozen=True, slots=True, eq=False)
class Update:
    """What an adapter does to one linear layer."""

    a: Tensor  # (in, r)
    b: Tensor  # (r, out), times the adapter's scale
    magnitude: Tensor | None = None  # (out,), DoRA's m; None: the norms of the layer's outputs are left as they come


class Adapters:
    """The adapters of one base model. `choose` says which row of the next batches speaks with which."""

    def __init__(self, model: nn.Module, keep: int = 16) -> None:
        self.model, self.keep = model, keep
        self.loaded: dict[str, dict[str, Update]] = {}  # digest -> module -> what it does, the last used at the end
        self.sites: dict[str, _Site] = {}
        self._chosen: tuple[str, ...] = ()

    def load(self, digest: str, folder: Path) -> None:
        """Reads an adapter in PEFT format, or finds it read."""
        found = self.loaded.pop(digest, None) or read(folder, next(self.model.parameters()))
        self.loaded[digest] = found  # at the end: the last used

    def choose(self, rows: Sequence[str]) -> None:
        """`rows` names the adapter of each row of the batch; "base" is none."""
        chosen = tuple(dict.fromkeys(digest for digest in rows if digest != "base"))
        self._forget(max(self.keep, len(chosen)))
        if chosen != self._chosen:
            self._stack(chosen)
        masks: dict[tuple, Tensor] = {}  # most layers have the same columns for the same adapters
        for site in self.sites.values():
            spans = tuple(site.spans.items())
            if spans not in masks:
                masks[spans] = site.mask_for(rows)
            site.rows = masks[spans]
            site.turn_up(rows)

    def keep_rows(self, kept: Tensor) -> None:
        """Goes on with some rows of the batch only, or with rows repeated: `kept` indexes the rows of before."""
        masks = {id(site.rows): site.rows[kept] for site in self.sites.values()}
        for site in self.sites.values():
            site.rows = masks[id(site.rows)]
            site.gain = None if site.gain is None else site.gain[kept]

    def _forget(self, keep: int) -> None:
        """Drops what was not used for longest; never what the batch at hand needs, however many those are."""
        while len(self.loaded) > keep:
            del self.loaded[next(iter(self.loaded))]

    def _stack(self, chosen: tuple[str, ...]) -> None:
        for site in self.sites.values():
            site.close()
        self.sites, self._chosen = {}, chosen
        for name in dict.fromkeys(module for digest in chosen for module in self.loaded[digest]):
            updates = {digest: self.loaded[digest][name] for digest in chosen if name in self.loaded[digest]}
            self.sites[name] = _Site(_layer(self.model, name), name, updates)


class _Site:
    """One linear layer that adapters act on, through a forward hook."""

    def __init__(self, module: nn.Module, name: str, updates: Mapping[str, Update]) -> None:
        import torch

        for update in updates.values():
            _check_shape(module, name, update)
        self.a = torch.cat([u.a for u in updates.values()], 1)
        self.b = torch.cat([u.b for u in updates.values()], 0)
        ends = torch.tensor([u.a.shape[1] for u in updates.values()]).cumsum(0).tolist()
        self.spans = dict(zip(updates, zip([0, *ends[:-1]], ends, strict=True), strict=True))
        self.rows = self.a.new_zeros(1, 1, self.a.shape[1])  # (B, 1, Σr): 1 at the columns of the row's own adapter
        self.gains = {digest: gain(module, u) for digest, u in updates.items() if u.magnitude is not None}
        self.gain: Tensor | None = None  # (B, 1, out) less 1; None where no row has DoRA
        self._hook = module.register_forward_hook(self._add)

    def mask_for(self, rows: Sequence[str]) -> Tensor:
        mask = self.a.new_zeros(len(rows), 1, self.a.shape[1])
        for row, digest in enumerate(rows):
            start, stop = self.spans.get(digest, (0, 0))
            mask[row, 0, start:stop] = 1
        return mask

    def turn_up(self, rows: Sequence[str]) -> None:
        """Sets each row's gain."""
        self.gain = None
        if self.gains:
            self.gain = self.a.new_zeros(len(rows), 1, self.b.shape[1])
            for row, digest in enumerate(rows):
                if digest in self.gains:
                    self.gain[row, 0] = self.gains[digest] - 1

    def close(self) -> None:
        self._hook.remove()

    def _add(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        output = output + ((inputs[0] @ self.a) * self.rows) @ self.b
        if self.gain is None:
            return output
        bias = getattr(module, "bias", None)
        return output + self.gain * (output if bias is None else output - bias)  # a gain of 1 adds zeros


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


def _layer(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError as error:
        raise MeritError(f"an adapter is for another model: this one has no layer {name!r}") from error


def _check_shape(module: nn.Module, name: str, update: Update) -> None:
    there = (getattr(module, "in_features", None), getattr(module, "out_features", None))
    wanted = (update.a.shape[0], update.b.shape[1])
    if None not in there and there != wanted:
        raise MeritError(
            f"an adapter is for another model: its layer {name!r} takes {wanted[0]} numbers and gives {wanted[1]}, that of "
            f"this model takes {there[0]} and gives {there[1]}"
        )


def read(folder: Path, like: Tensor) -> dict[str, Update]:
    """What an adapter does, by module, in the dtype of `like`."""
    from safetensors.torch import load_file

    config_file, weights = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    if not (config_file.is_file() and weights.is_file()):
        raise MeritError(
            f"{folder} is no adapter in PEFT format: it needs adapter_config.json and adapter_model.safetensors"
        )
    config = json.loads(config_file.read_text())
    if config.get("rank_pattern") or config.get("alpha_pattern"):
        raise MeritError(
            f"{folder}: rank and alpha patterns are not served by this engine; use one rank for all layers"
        )
    tensors = load_file(weights)
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
