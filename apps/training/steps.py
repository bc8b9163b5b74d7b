"""Which rows an optimiser step is made of, and how a step is divided: among ranks, and into micro-batches of padded tensors.

What belongs together (a pair, the candidates of a state) is never parted. None of this changes a step's loss or gradient,
since an objective divides by the counts of the whole step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
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
    """`members` by length, in parts of at most `tokens` tokens with padding; pairs and states stay together."""
    lengths = {i: len(rows.prompts[i]) + len(rows.completions[i]) for i in members.tolist()}
    units = [unit.tolist() for unit in wholes(rows, members)]
    groups = sorted(units, key=lambda group: max(lengths[i] for i in group))
    part: list[int] = []
    for group in groups:
        width = max(lengths[i] for i in group)
        if part and (len(part) + len(group)) * width > tokens:
            yield np.array(part)
            part = []
        part += group
    if part:
        yield np.array(part)


def scale_at(step: int, total: int, options: Options) -> float:
    """The share of the peak rate at a step (from 0) of `total`."""
    if step < options.warmup:
        return (step + 1) / options.warmup
    if options.schedule == "constant":
        return 1.0
    progress = min(1.0, (step - options.warmup) / max(1, total - options.warmup))
    falling = 1 - progress if options.schedule == "linear" else (1 + math.cos(math.pi * progress)) / 2
    return options.floor + (1 - options.floor) * falling


def pad(rows: Rows, micro: Sequence[int], torch, device: str):
    """Ids and mask (B, W) padded on the right, and (row, position, column) of every completion token.

    The first token of a row without a prompt has nothing before it and carries no loss.
    """
    sequences = [np.concatenate([rows.prompts[i], rows.completions[i]]) for i in micro]
    width = max(len(s) for s in sequences)
    ids, mask = np.zeros((len(micro), width), np.int64), np.zeros((len(micro), width), np.int64)
    row, position, column = [], [], []
    for b, (i, sequence) in enumerate(zip(micro, sequences, strict=True)):
        ids[b, : len(sequence)], mask[b, : len(sequence)] = sequence, 1
        start = len(rows.prompts[i])
        places = np.arange(max(start, 1), len(sequence))
        row.append(np.full(len(places), b))
        position.append(places)
        column.append(places - start)
    where = tuple(torch.from_numpy(np.concatenate(part)).to(device) for part in (row, position, column))
    return torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device), where


def counts_of(rows: Rows, members: np.ndarray) -> dict[str, float]:
    tokens = float(sum(len(rows.completions[i]) - (len(rows.prompts[i]) == 0) for i in members))
    states = 0.0 if rows.states is None else float(len(np.unique(rows.states[members])))
    pairs = len(members) / 2 if rows.paired else 0.0
    return {"tokens": tokens, "sequences": float(len(members)), "pairs": pairs, "states": states}
