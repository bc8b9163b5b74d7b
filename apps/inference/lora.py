"""Several adapters on one base model in one batch: each row of the batch has its own. LoRA, rsLoRA and DoRA.

PEFT's own way (`adapter_names`) loops over the adapters in every layer, which at this size costs more than it
saves. Here the adapters' A matrices stand side by side, one product serves all rows, and a mask keeps of each row only
the columns of its own adapter: y = W x + ((x A_all) * mask) B_all. Exact: what is masked adds zeros.

DoRA's gain on each output follows from the weights alone, so it is worked out once, when the adapters of a batch change. An
adapter that has a batch to itself is added to the weights instead, where that is allowed (merge.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from apps.inference.adapter import Update, check_base, check_shape, gain, layer_of, read
from apps.inference.merge import Merged

if TYPE_CHECKING:
    from torch import Tensor, nn


class Adapters:
    """The adapters of one base model. `choose` says which row of the next batches speaks with which."""

    def __init__(self, model: nn.Module, keep: int = 16, merge_gib: float = 0.0) -> None:
        self.model, self.keep, self.merged = model, keep, Merged(model, merge_gib)
        self.loaded: dict[str, dict[str, Update]] = {}  # digest -> module -> what it does, the last used at the end
        self.sites: dict[str, _Site] = {}
        self._chosen: tuple[str, ...] = ()

    def load(self, digest: str, folder: Path) -> None:
        """Reads an adapter in PEFT format, or finds it read."""
        found = self.loaded.pop(digest, None) or self._read(folder)
        self.loaded[digest] = found  # at the end: the last used

    def _read(self, folder: Path) -> dict[str, Update]:
        if hasattr(self.model, "config"):
            check_base(folder, self.model.config.get_text_config().vocab_size)
        return read(folder, next(self.model.parameters()))

    def choose(self, rows: Sequence[str]) -> None:
        """`rows` names the adapter of each row of the batch; "base" is none."""
        chosen = tuple(dict.fromkeys(digest for digest in rows if digest != "base"))
        self._forget(max(self.keep, len(chosen)))
        if len(set(rows)) == len(chosen) == 1 and self.merged.takes(self.loaded[chosen[0]]):
            self.merged.put(chosen[0], self.loaded[chosen[0]])
            chosen = ()
        else:
            self.merged.take_back()
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
            self.sites[name] = _Site(layer_of(self.model, name), name, updates)


class _Site:
    """One linear layer that adapters act on, through a forward hook."""

    def __init__(self, module: nn.Module, name: str, updates: Mapping[str, Update]) -> None:
        import torch

        for update in updates.values():
            check_shape(module, name, update)
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
        output = output + (inputs[0] @ self.a).mul_(self.rows) @ self.b
        if self.gain is None:
            return output
        bias = getattr(module, "bias", None)
        return output + self.gain * (output if bias is None else output - bias)  # a gain of 1 adds zeros
