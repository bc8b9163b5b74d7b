"""Keys and values with room to grow: what decoding appends is written in place, and rows that end leave by being overwritten.

Transformers' own cache grows by concatenation, so every token copies all that was read before it, and dropping a row copies
the others. Layers of another kind (a sliding window, a recurrent state) stay as their model made them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import Cache

BLOCK = 32  # tokens: the least that a layer grows by


class Room:
    """One attention layer's keys and values, (B, H, T, D) each, in buffers that may be longer and have more rows.

    `keys` and `values` are views of what is filled. It stands in the place of Transformers' `DynamicLayer` and answers
    what a model asks of that.
    """

    is_sliding = is_compileable = False
    is_initialized = True

    def __init__(self, keys: Tensor, values: Tensor, rows: Tensor) -> None:
        """Begins with `rows` of what another layer holds, each as often as it is named."""
        self.dtype, self.device = keys.dtype, keys.device
        self._buffers = tuple(_grown(part, rows, part.shape[2] + BLOCK) for part in (keys, values))
        self._see(len(rows), keys.shape[2])

    def _see(self, rows: int, length: int) -> None:
        self.keys, self.values = (buffer[:rows, :, :length] for buffer in self._buffers)

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
        rows, start = len(key_states), self.keys.shape[2]
        end = start + key_states.shape[2]
        if end > self._buffers[0].shape[2]:
            capacity = end + max(BLOCK, end // 2)
            self._buffers = tuple(_grown(part, slice(None), capacity) for part in (self.keys, self.values))
        for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:rows, :, start:end] = new
        self._see(rows, end)
        return self.keys, self.values

    def get_seq_length(self) -> int:
        return self.keys.shape[2]

    def get_max_length(self) -> int:
        return -1  # none

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """How many keys the next tokens see, and the place of the first."""
        return self.keys.shape[2] + query_length, 0

    def reorder_cache(self, indices: Tensor) -> None:
        """Row i becomes what row `indices[i]` was. Rows that stay where they are cost nothing."""
        rows, length = len(indices), self.keys.shape[2]
        if rows > len(self.keys):
            self._buffers = tuple(_grown(part, indices, length + BLOCK) for part in (self.keys, self.values))
        else:
            moved = (indices != indices.new_ones(rows).cumsum(0) - 1).nonzero()[:, 0]
            for part in (self.keys, self.values):
                part[moved] = part[indices[moved]]
        self._see(rows, length)


def roomy(cache: Cache, rows: Tensor) -> Cache:
    """`cache` with row i holding what row `rows[i]` held, its plain attention layers replaced by ones with room."""
    from transformers.cache_utils import CacheLayerMixin, DynamicLayer

    CacheLayerMixin.register(Room)
    for number, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer and layer.is_initialized:
            cache.layers[number] = Room(layer.keys, layer.values, rows)
        else:
            layer.reorder_cache(rows)
    return cache


def keep_rows(cache: Cache, rows: Tensor) -> None:
    """Row i becomes what row `rows[i]` was, in every layer."""
    for layer in cache.layers:
        layer.reorder_cache(rows)


def closed_up(going: Sequence[int]) -> list[int]:
    """The rows `going` (ascending) in an order in which as many as can be stay in place: the last ones fill the holes."""
    count = len(going)
    stay = {row for row in going if row < count}
    last = [row for row in going if row >= count]
    return [row if row in stay else last.pop() for row in range(count)]


def _grown(part: Tensor, rows: Tensor | slice, capacity: int) -> Tensor:
    """A buffer that begins with those rows of `part` and is `capacity` tokens long."""
    chosen = part[rows]
    count, heads, length, width = chosen.shape
    buffer = part.new_empty(count, heads, capacity, width)
    buffer[:, :, :length] = chosen
    return buffer
