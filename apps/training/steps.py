"""Which rows an optimiser step is made of, and how a step is divided: among ranks, and into micro-batches.

What belongs together (a pair, the candidates of a state) is never parted. None of this changes a step's loss or gradient,
since an objective divides by the counts of the whole step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from apps.training.rows import Rows

if TYPE_CHECKING:
    from apps.training.options import Options


def plan_steps(rows: Rows, options: Options, seed: int) -> list[np.ndarray]:
    """The rows of each optimiser step: every epoch a new order; pairs and states stay together; steps of nearly equal size."""
    units = wholes(rows, np.arange(len(rows)))
    if not units:
        return []
    rng = np.random.default_rng(seed)
    count = math.ceil(len(units) / max(1, options.step_rows // max(map(len, units))))
    plan = []
    for _ in range(options.epochs):
        order = rng.permutation(len(units))
        plan += [np.concatenate([units[i] for i in part]) for part in np.array_split(order, count)]
    return plan


def wholes(rows: Rows, members: np.ndarray) -> list[np.ndarray]:
    """`members` cut into what is never parted: single rows, pairs, or all candidates of a state."""
    if not len(members):
        return []
    return np.split(members, np.flatnonzero(np.diff(rows.wholes[members])) + 1)


def share(rows: Rows, members: np.ndarray, tokens: int, rank: int, size: int) -> list[tuple[np.ndarray, float]]:
    """A rank's micro-batches of a step, each with its weight: 1, or 0 for one that only keeps the others company.

    All ranks have equally many, at least one, as weights that are divided among ranks are fetched by all together.
    """
    parts = [list(micro_batches(rows, hand, tokens)) for hand in deal(rows, members, size)]
    company = min(wholes(rows, members), key=lambda unit: rows.lengths[unit].max())
    return [(micro, 1.0) for micro in parts[rank]] + [(company, 0.0)] * (max(map(len, parts)) - len(parts[rank]))


def deal(rows: Rows, members: np.ndarray, size: int) -> list[np.ndarray]:
    """`members` dealt to so many ranks by length, one after another: each has about as many tokens; some may have none."""
    lengths = rows.lengths
    units = sorted(wholes(rows, members), key=lambda unit: lengths[unit].max())
    return [np.concatenate([members[:0], *units[rank::size]]) for rank in range(size)]


def micro_batches(rows: Rows, members: np.ndarray, tokens: int) -> Iterator[np.ndarray]:
    """`members` in parts of about `tokens` tokens, a prompt that rows share counted once; pairs and states stay together.

    Rows of one prompt lie side by side, so that it is read once, and rows of like length, so that lines are filled.
    """
    lengths, groups = rows.lengths, wholes(rows, members)
    longest: dict[bytes, int] = {}
    for group in groups:
        first = rows.prompts[group[0]].tobytes()
        longest[first] = max(longest.get(first, 0), int(lengths[group].max()))
    order = sorted(groups, key=lambda g: (longest[rows.prompts[g[0]].tobytes()], rows.prompts[g[0]].tobytes()))
    part: list[np.ndarray] = []
    size, read = 0, set[bytes]()
    for group in order:
        if part and size + _tokens(rows, group, read) > tokens:
            yield np.concatenate(part)
            part, size, read = [], 0, set()
        size += _tokens(rows, group, read)
        part.append(group)
        read |= {rows.prompts[i].tobytes() for i in group}
    if part:
        yield np.concatenate(part)


def _tokens(rows: Rows, group: np.ndarray, read: set[bytes]) -> int:
    """The tokens that a group adds to a micro-batch in which the prompts of `read` are."""
    prompts = {rows.prompts[i].tobytes(): len(rows.prompts[i]) for i in group}
    new = sum(length for prompt, length in prompts.items() if prompt not in read)
    return new + sum(len(rows.completions[i]) for i in group)


def scale_at(step: int, total: int, options: Options) -> float:
    """The share of the peak rate at a step (from 0) of `total`."""
    if step < options.warmup:
        return (step + 1) / options.warmup
    if options.schedule == "constant":
        return 1.0
    progress = min(1.0, (step - options.warmup) / max(1, total - options.warmup))
    falling = 1 - progress if options.schedule == "linear" else (1 + math.cos(math.pi * progress)) / 2
    return options.floor + (1 - options.floor) * falling


def counts_of(rows: Rows, members: np.ndarray) -> dict[str, float]:
    """What objectives divide by. The first token of a row without a prompt has nothing before it, so it carries no loss."""
    tokens = float(sum(rows.own(i).sum() - (len(rows.prompts[i]) == 0 and rows.own(i)[:1].sum()) for i in members))
    states = 0.0 if rows.states is None else float(len(np.unique(rows.states[members])))
    pairs = len(members) / 2 if rows.paired else 0.0
    return {"tokens": tokens, "sequences": float(len(members)), "pairs": pairs, "states": states}
