"""Several LoRA adapters on one base model in one batch: each row of the batch has its own.

PEFT's own way (`adapter_names`) loops over the adapters in every layer, which at this size costs more than it
saves. Here the adapters' A matrices stand side by side, one product serves all rows, and a mask keeps of each row only
the columns of its own adapter: y = W x + ((x A_all) * mask) B_all. Exact: what is masked adds zeros.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from apps.records import MeritError

if TYPE_CHECKING:
    from torch import Tensor, nn

PREFIX = "base_model.model."


class Adapters:
    """The adapters of one base model. `choose` says which row of the next batches speaks with which."""

    def __init__(self, model: nn.Module, keep: int = 16) -> None:
        import torch

        self.model, self.keep = model, keep
        # digest -> module -> (A (in, r), scaled B (r, out)), the last used at the end
        self.loaded: dict[str, dict[str, tuple[Tensor, Tensor]]] = {}
        self.sites: dict[str, _Site] = {}
        self._chosen: tuple[str, ...] = ()
        self._torch = torch

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

    def keep_rows(self, kept: Tensor) -> None:
        """Goes on with some rows of the batch only, or with rows repeated: `kept` indexes the rows of before."""
        masks = {id(site.rows): site.rows[kept] for site in self.sites.values()}
        for site in self.sites.values():
            site.rows = masks[id(site.rows)]

    def _forget(self, keep: int) -> None:
        """Drops what was not used for longest; never what the batch at hand needs, however many those are."""
        while len(self.loaded) > keep:
            del self.loaded[next(iter(self.loaded))]

    def _stack(self, chosen: tuple[str, ...]) -> None:
        torch = self._torch
        for site in self.sites.values():
            site.close()
        self.sites, self._chosen = {}, chosen
        for name in dict.fromkeys(module for digest in chosen for module in self.loaded[digest]):
            parts = [(digest, *self.loaded[digest][name]) for digest in chosen if name in self.loaded[digest]]
            spans, end = {}, 0
            for digest, a, _ in parts:
                spans[digest] = (end, end := end + a.shape[1])
            stacked_a, stacked_b = torch.cat([a for _, a, _ in parts], 1), torch.cat([b for _, _, b in parts], 0)
            self.sites[name] = _Site(_layer(self.model, name), stacked_a, stacked_b, spans)


class _Site:
    """One linear layer that adapters act on, through a forward hook."""

    def __init__(self, module: nn.Module, a: Tensor, b: Tensor, spans: dict[str, tuple[int, int]]) -> None:
        self.a, self.b, self.spans = a, b, spans
        self.rows = a.new_zeros(1, 1, a.shape[1])  # (B, 1, Σr): 1 at the columns of the row's own adapter
        self._hook = module.register_forward_hook(self._add)

    def mask_for(self, rows: Sequence[str]) -> Tensor:
        mask = self.a.new_zeros(len(rows), 1, self.a.shape[1])
        for row, digest in enumerate(rows):
            start, stop = self.spans.get(digest, (0, 0))
            mask[row, 0, start:stop] = 1
        return mask

    def close(self) -> None:
        self._hook.remove()

    def _add(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + ((inputs[0] @ self.a) * self.rows) @ self.b


def _layer(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError as error:
        raise MeritError(f"an adapter is for another model: this one has no layer {name!r}") from error


def read(folder: Path, like: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """An adapter's matrices by module: A as (in, r) and B as (r, out) times its scale, in the dtype of `like`."""
    from safetensors.torch import load_file

    config_file, weights = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    if not (config_file.is_file() and weights.is_file()):
        raise MeritError(
            f"{folder} is no adapter in PEFT format: it needs adapter_config.json and adapter_model.safetensors"
        )
    config = json.loads(config_file.read_text())
    if config.get("use_dora") or config.get("rank_pattern") or config.get("alpha_pattern"):
        raise MeritError(f"{folder}: DoRA and rank or alpha patterns are not served by this engine; use plain LoRA")
    rank = config["r"]
    scale = config["lora_alpha"] / (rank**0.5 if config.get("use_rslora") else rank)
    tensors = load_file(weights)
    if other := [key for key in tensors if not key.endswith((".lora_A.weight", ".lora_B.weight"))]:
        raise MeritError(f"{folder}: {other[0]} is no LoRA matrix of a linear layer; this engine serves nothing else")
    pairs = {}
    for key in tensors:
        if key.endswith(".lora_A.weight"):
            name = key.removeprefix(PREFIX).removesuffix(".lora_A.weight")
            a, b = tensors[key], tensors[key.replace(".lora_A.", ".lora_B.")] * scale
            pairs[name] = (a.T.contiguous().to(like), b.T.contiguous().to(like))
    return pairs
