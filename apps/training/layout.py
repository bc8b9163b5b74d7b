"""How a micro-batch's rows lie in the tensors that a model reads: side by side in lines, without padding where that works.

A line holds whole *families*: one prompt and the completions that follow it, each of which sees the prompt and itself alone.
So a prompt that several rows share is read once, and nothing is attended to across rows or documents. Not an
approximation: positions go on from the prompt in every completion, and what each token sees is what it saw alone.

A model whose attention takes no mask of ours (a sliding window, a recurrent layer) has one row a line, padded on the right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from apps.training.rows import Rows

if TYPE_CHECKING:
    from torch import Tensor

Family = tuple[np.ndarray, list[int]]  # a prompt's ids and the places, in the micro-batch, of the rows that follow it


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """L lines of W tokens, and where in them the N completion tokens of B rows are.

    The first token of a row without a prompt has nothing before it and is none of the N.
    """

    ids_LW: Tensor  # int64; 0 at padding
    positions_LW: Tensor  # int64, counted from the start of each row
    segments_LW: Tensor  # int64: equal numbers belong together; 0 is padding
    parents_LW: Tensor  # int64: the segment that is seen besides the token's own; −1 for none
    row_N: Tensor  # int64: which row of the micro-batch
    column_N: Tensor  # int64: which token of its completion
    here_N: Tensor  # int64 into the flat lines: the token itself
    before_N: Tensor  # int64 into the flat lines: the token that it follows
    kept_NK: Tensor | None  # int64: the ids that each token was drawn from, −1 beyond; None where it was from all
    shape: tuple[int, int]  # (B, T): rows, and tokens of the longest completion
    packed: bool  # whether some line holds more than one row

    def to(self, device: str) -> Layout:
        tensors = {name: getattr(self, name) for name in self.__slots__ if name not in ("shape", "packed")}
        return replace(self, **{name: tensor.to(device) for name, tensor in tensors.items() if tensor is not None})

    @property
    def tokens_N(self) -> Tensor:
        return self.ids_LW.view(-1)[self.here_N]

    def mask(self, dtype) -> Tensor:
        """What each token sees: 0 or the least number of `dtype` (L, 1, W, W), or where lines are rows the usual (L, W) of 1 and 0."""
        if not self.packed:
            return (self.segments_LW > 0).long()
        import torch

        own, parent = self.segments_LW[:, :, None], self.parents_LW[:, :, None]
        other = self.segments_LW[:, None, :]
        width = other.shape[-1]
        seen = ((own == other) | (parent == other)) & torch.ones(
            width, width, dtype=torch.bool, device=own.device
        ).tril()
        return torch.zeros(seen.shape, dtype=dtype, device=own.device).masked_fill(~seen, torch.finfo(dtype).min)[
            :, None
        ]

    def spread(self, values_N: Tensor) -> Tensor:
        """Values of the N tokens as (B, T), 0 elsewhere."""
        return values_N.new_zeros(self.shape).index_put((self.row_N, self.column_N), values_N)


def lay(rows: Rows, micro: Sequence[int], packed: bool) -> Layout:
    """The layout of a micro-batch on the CPU."""
    lines = (
        fill(families(rows, micro), rows, micro) if packed else [[(rows.prompts[i], [b])] for b, i in enumerate(micro)]
    )
    width = max(sum(tokens_of(family, rows, micro) for family in line) for line in lines)
    ids, positions, segments = (np.zeros((len(lines), width), np.int64) for _ in range(3))
    parents = np.full((len(lines), width), -1, np.int64)
    found: list[np.ndarray] = []
    for number, line in enumerate(lines):
        start, segment = 0, 0
        for prompt, members in line:
            first, segment = start, segment + 1
            stop = start + len(prompt)
            ids[number, start:stop], positions[number, start:stop] = prompt, np.arange(len(prompt))
            segments[number, start:stop] = parent = segment
            for b in members:
                said = rows.completions[micro[b]]
                start, stop, segment = stop, stop + len(said), segment + 1
                ids[number, start:stop], segments[number, start:stop] = said, segment
                positions[number, start:stop], parents[number, start:stop] = len(prompt) + np.arange(len(said)), parent
                found.append(
                    _places(b, number * width, start, len(said), first + len(prompt) - 1 if len(prompt) else None)
                )
            start = stop
    row, column, here, before = np.concatenate(found, axis=1)
    shape = (len(micro), max(len(rows.completions[i]) for i in micro))
    arrays = (ids, positions, segments, parents, row, column, here, before)
    return _layout(arrays, _kept(rows, micro, row, column), shape, len(lines) < len(micro))


def _kept(rows: Rows, micro: Sequence[int], row: np.ndarray, column: np.ndarray) -> np.ndarray | None:
    """What each of the N tokens was drawn from, (N, K)."""
    if not len(rows.kept):
        return None
    table = np.full((len(row), max(rows.kept[i].shape[1] for i in micro)), -1, np.int64)
    for b, i in enumerate(micro):
        mine = row == b
        table[mine, : rows.kept[i].shape[1]] = rows.kept[i][column[mine]]
    return table


def _places(b: int, offset: int, start: int, length: int, last: int | None) -> np.ndarray:
    """(row, column, here, before) of a completion's tokens, (4, C); `last` is the place of its prompt's last token."""
    here = np.arange(start, start + length)
    before = here - 1
    if length and last is not None:
        before[0] = last
    found = np.stack([np.full(length, b), np.arange(length), offset + here, offset + before])
    return found if last is not None else found[:, 1:]


def _layout(arrays: Sequence[np.ndarray], kept: np.ndarray | None, shape: tuple[int, int], packed: bool) -> Layout:
    import torch

    tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]
    return Layout(*tensors, None if kept is None else torch.from_numpy(kept), shape, packed)


def families(rows: Rows, micro: Sequence[int]) -> list[Family]:
    """Rows by prompt, in the order of their first rows. A row without a prompt is a family of its own."""
    found: dict[bytes | int, Family] = {}
    for b, i in enumerate(micro):
        prompt = rows.prompts[i]
        found.setdefault(prompt.tobytes() if len(prompt) else b, (prompt, []))[1].append(b)
    return list(found.values())


def tokens_of(family: Family, rows: Rows, micro: Sequence[int]) -> int:
    prompt, members = family
    return len(prompt) + sum(len(rows.completions[micro[b]]) for b in members)


def fill(given: list[Family], rows: Rows, micro: Sequence[int]) -> list[list[Family]]:
    """Families dealt to lines as long as the longest: the longest first, each where it leaves least room, else on a new line."""
    sized = sorted(((tokens_of(family, rows, micro), n) for n, family in enumerate(given)), key=lambda p: (-p[0], p[1]))
    lines: list[list[Family]] = []
    room: list[int] = []
    for size, n in sized:
        fits = [(left, line) for line, left in enumerate(room) if left >= size]
        if fits:
            line = min(fits)[1]
        else:
            line = len(lines)
            lines.append([])
            room.append(sized[0][0])
        lines[line].append(given[n])
        room[line] -= size
    return lines
