"""Keys and values with room to grow: what decoding appends is written in place, and rows that end leave by being overwritten.

Transformers' own cache grows by concatenation, so every token copies all that was read before it, and dropping a row copies
the others. Layers of another kind (a sliding window, a recurrent state) stay as their model made them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

BLOCK = 32  # tokens: the least that a layer grows by


class Room(DynamicLayer):
    """One attention layer's keys and values, (B, H, T, D) each, in buffers that may be longer and have more rows.

    `keys` and `values` are views of what is filled.
    """

    def __init__(self, keys: Tensor, values: Tensor, rows: Tensor) -> None:
        """Begins with `rows` of what another layer holds, each as often as it is named."""
        super().__init__()
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self._buffers = tuple(_grown(part, rows, part.shape[2] + BLOCK) for part in (keys, values))
        self._see(len(rows), keys.shape[2])

    def _see(self, rows: int, length: int) -> None:
        self.keys, self.values = (buffer[:rows, :, :length] for buffer in self._buffers)

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
        rows, start = len(key_states), self.keys.shape[2]
        end = start + key_states.shape[2]
        if end > self._buffers[0].shape[2]:
            whole = torch.arange(rows, device=self.device)
            capacity = end + max(BLOCK, end // 2)
            self._buffers = tuple(_grown(part, whole, capacity) for part in (self.keys, self.values))
        for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:rows, :, start:end] = new
        self._see(rows, end)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Row i becomes what row `indices[i]` was. Rows that stay where they are cost nothing."""
        rows, length = len(indices), self.keys.shape[2]
        if rows > len(self.keys):
            self._buffers = tuple(_grown(part, indices, length + BLOCK) for part in (self.keys, self.values))
        else:
            moved = (indices != torch.arange(rows, device=indices.device)).nonzero()[:, 0]
            for part in (self.keys, self.values):
                part[moved] = part[indices[moved]]
        self._see(rows, length)


def roomy(cache: Cache, rows: Tensor) -> Cache:
    """`cache` with row i holding what `rows[i]` held, its plain attention layers replaced by ones with room."""
    for number, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer and layer.is_initialized:
            cache.layers[number] = Room(layer.keys, layer.values, rows)
        else:
            layer.batch_select_indices(rows)
    return cache


def closed_up(going: Sequence[int]) -> list[int]:
    """The rows `going` (ascending) in an order in which as many as can be stay in place: the last ones fill the holes."""
    count = len(going)
    stay = {row for row in going if row < count}
    last = [row for row in going if row >= count]
    return [row if row in stay else last.pop() for row in range(count)]


def _grown(part: Tensor, rows: Tensor, capacity: int) -> Tensor:
    """A buffer that begins with those rows of `part` and is `capacity` tokens long."""
    _, heads, length, width = part.shape
    buffer = part.new_empty(len(rows), heads, capacity, width)
    buffer[:, :, :length] = part[rows]
    return buffer
