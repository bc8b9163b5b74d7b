"""Rows that fit the model's context: the context of an answer is cut, the answer never.

A row of several answers that is too long becomes a row an answer, each with all that was said before it as its prompt;
then the prompt loses tokens, from its middle (which keeps the system's words and the last question) or from its left.
An answer that does not fit alone is left out, and counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from apps.data.chat_rows import Said


@dataclass(frozen=True, slots=True)
class Cut:
    """What became of rows."""

    shortened: int = 0  # rows that lost a part of their prompt
    left_out: int = 0  # answers that are longer than the context by themselves

    def __add__(self, other: Cut) -> Cut:
        return Cut(self.shortened + other.shortened, self.left_out + other.left_out)


def fitted(rows: Iterable[Said], context: int, where: str) -> tuple[list[Said], Cut]:
    """Rows of at most `context` tokens; `where` a prompt is cut: "middle" or "left"."""
    kept, cut = [], Cut()
    for row in rows:
        for part in [row] if size(row) <= context else answers(row):
            if size(part) <= context:
                kept.append(part)
            elif len(part.completion) >= context:  # a token has to stand before the first that is learnt
                cut += Cut(left_out=1)
            else:
                kept.append(shortened(part, context, where))
                cut += Cut(shortened=1)
    return kept, cut


def size(row: Said) -> int:
    return len(row.prompt) + len(row.completion)


def answers(row: Said) -> Iterator[Said]:
    """A row an answer: all before it is its prompt, what follows its last token that carries loss is gone."""
    ids, own = np.concatenate([row.prompt, row.completion]), np.flatnonzero(row.mask)
    for start, following in zip(row.starts, [*row.starts[1:], len(row.mask)], strict=True):
        end = own[own < following][-1] + 1
        yield Said(ids[: len(row.prompt) + start], row.completion[start:end], row.mask[start:end])


def shortened(row: Said, context: int, where: str) -> Said:
    """The row with so much of its prompt as there is room for."""
    room = context - len(row.completion)
    head = room // 2 if where == "middle" else 0
    prompt = np.concatenate([row.prompt[:head], row.prompt[len(row.prompt) - (room - head) :]])
    return Said(prompt, row.completion, row.mask)
