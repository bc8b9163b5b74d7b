"""What a process reward model is taught: after a question and the steps so far, a good label or a bad one.

The label of a step is estimated by Monte Carlo, as in Math-Shepherd (arXiv 2312.08935, section 3.2): of R plays that go on
from it, the share that end right. `hard`: good where the share is above theta (theirs: above 0, one play is enough).
`soft`: one row for each play, labelled by how it ended, which is cross-entropy against the share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from pydantic import Field

from apps import records
from apps.credit import process_reward
from apps.records import Group
from apps.training.rows import Rows


class Options(records.Options):
    """How a share becomes labels."""

    estimation: Literal["hard", "soft"] = Field("hard", description="one label a step, or one for each play from it")
    theta: float = Field(0.5, ge=0, lt=1, description="hard: the label is good where the share is above it")


@dataclass(frozen=True, slots=True)
class Step:
    """A beginning of a play, and what came of going on from it."""

    task: str
    prompt: str  # what the reward model reads
    share: float  # of the plays that ended right
    plays: int  # that went on from here; a play that is over counts as all of them


def steps(group: Group, measured: Sequence[np.ndarray], reading: process_reward.Options) -> list[Step]:
    """The distinct steps of a group, the bare question among them; `measured` (T + 1, R) a trace are scores from each."""
    found: dict[str, Step] = {}
    for graded, scores in zip(group.graded, measured, strict=True):
        for keep, row in enumerate(scores):
            prompt = process_reward.prompt(group, graded.trace, keep, reading)
            found.setdefault(prompt, Step(group.task.id, prompt, float(row.mean()), len(row)))
    return list(found.values())


def taught(found: Iterable[Step], options: Options, reading: process_reward.Options) -> list[tuple[str, str]]:
    """(prompt, label) of every row."""
    rows = []
    for step in found:
        if options.estimation == "hard":
            rows.append((step.prompt, reading.good if step.share > options.theta else reading.bad))
        else:
            good = round(step.share * step.plays)
            rows += [(step.prompt, reading.good)] * good + [(step.prompt, reading.bad)] * (step.plays - good)
    return rows


@dataclass(frozen=True, slots=True)
class Play:
    """A whole play as a scalar head reads it."""

    prompt: str
    pieces: tuple[str, ...]  # the opening, then each step
    shares: tuple[float, ...]  # of the plays that ended right, going on from each


def plays(group: Group, measured: Sequence[np.ndarray], reading: process_reward.Options) -> list[Play]:
    """The distinct plays of a group; `measured` as for `steps`."""
    found: dict[tuple[str, ...], Play] = {}
    for graded, scores in zip(group.graded, measured, strict=True):
        (asked,) = process_reward.questions(group, graded.trace, reading)
        shares = tuple(float(share) for share in scores.mean(axis=1))
        found.setdefault(asked.pieces, Play(asked.prompt, asked.pieces, shares))
    return list(found.values())


def rows_of_plays(
    found: Sequence[Play],
    options: Options,
    prompt: Callable[[str], np.ndarray],
    joined: Callable[[Sequence[str]], tuple[np.ndarray, np.ndarray]],
) -> Rows:
    """Rows for the objective `process`: a target at the last token of each step, and a mask that makes those the own tokens.

    `hard` targets are 1 or 0 by theta, `soft` ones the shares themselves.
    """
    read = [joined(play.pieces) for play in found]
    targets, masks = [], []
    for (ids, ends), play in zip(read, found, strict=True):
        shares = np.array(play.shares, np.float32)
        target, mask = np.full(len(ids), np.nan, np.float32), np.zeros(len(ids), np.float32)
        target[ends] = shares > options.theta if options.estimation == "hard" else shares
        mask[ends] = 1
        targets.append(target)
        masks.append(mask)
    return Rows(
        [prompt(play.prompt) for play in found],
        [ids for ids, _ in read],
        [np.zeros(0, np.float32)] * len(found),
        np.ones(len(found)),
        columns={"targets": targets, "mask": masks},
    )


def shuffled(rows: Rows, seed: int) -> Rows:
    """The control experiment: the same labels, dealt out at random among all rows, or among all steps of all rows."""
    rng = np.random.default_rng(seed)
    if "targets" not in rows.columns:
        order = rng.permutation(len(rows))
        return replace(rows, completions=[rows.completions[i] for i in order])
    flat = np.concatenate(rows.columns["targets"])
    known = np.flatnonzero(np.isfinite(flat))
    flat[known] = flat[rng.permutation(known)]
    edges = np.cumsum([len(column) for column in rows.columns["targets"]])[:-1]
    return replace(rows, columns={**rows.columns, "targets": np.split(flat, edges)})


def rows_of(
    taught: Sequence[tuple[str, str]], prompt: Callable[[str], np.ndarray], completion: Callable[[str], np.ndarray]
) -> Rows:
    """Rows for the trainer; `prompt` and `completion` make ids of texts. The loss is on the label alone."""
    return Rows(
        [prompt(text) for text, _ in taught],
        [completion(label) for _, label in taught],
        [np.zeros(0, np.float32)] * len(taught),
        np.ones(len(taught)),
    )
