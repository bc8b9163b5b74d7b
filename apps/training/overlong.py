"""Soft punishment of turns that run long: DAPO's fourth part.

max(−1, min(0, (L_max − L_buffer − |y|) / L_buffer)) is added to a turn's reward: nothing up to L_max − L_buffer tokens, −1 at
L_max, a line between. Source: arXiv 2503.14476, eq. 13 (there L_max 20,480, L_buffer 4,096; the accuracy's reward is ±1).
Here L_max is `sampling.max_new_tokens`, a completion is one agent's turn, and the reward is its credit, whose unit is
smaller under many methods: a penalty of −1 may then be the largest number of a group. Not a filter of cut-off answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from apps.records import Turn, Valued


def penalty(length: int, longest: int, buffer: int) -> float:
    """In [−1, 0], for a completion of `length` tokens; `longest` = L_max, `buffer` = L_buffer > 0."""
    return max(-1.0, min(0.0, (longest - buffer - length) / buffer))


def shaped(turns: Sequence[tuple[Turn, Valued]], buffer: int) -> list[tuple[Turn, Valued]]:
    """The turns with that in their values; as they are where `buffer` is 0."""
    if not buffer:
        return list(turns)
    return [
        (turn, replace(row, value=row.value + penalty(len(turn.completion_ids), turn.sampling.max_new_tokens, buffer)))
        for turn, row in turns
    ]
