"""The canary: fixed sequences with the trainer's own log-probabilities, kept beside an adapter.

An engine that first uses the adapter scores the same sequences. Where the two differ, the engine does not speak with the
weights that were trained (a rollout that never received its new weights is a known failure), and the run must stop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from apps.records import MeritError
from apps.training.rows import Rows

FILE = "canary.npz"
SEQUENCES = 4
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.05}  # nats: the largest difference at a token; the mean one in bfloat16

Pair = tuple[np.ndarray, np.ndarray]  # prompt ids, completion ids


def write(folder: Path, rows: Rows, score: Callable[[Rows], Sequence[np.ndarray]], keep: bool = True) -> None:
    """Stores the first rows with `score(rows)`: log-probabilities at temperature 1. All ranks score, one has to `keep`."""
    first = replace(rows.first(SEQUENCES), kept=())  # an engine scores under the whole distribution
    scored = Rows(first.prompts, first.completions, score(first), np.ones(len(first)))
    if keep:
        scored.save(folder / FILE)


def check(
    folder: Path, name: str, score: Callable[[Sequence[Pair]], Sequence[np.ndarray]], dtype: str = "float32"
) -> float:
    """The difference (nats); raises MeritError where it passes the tolerance of `dtype`."""
    kept = Rows.load(folder / FILE)
    scores = score(list(zip(kept.prompts, kept.completions, strict=True)))
    apart = np.abs(np.concatenate([*scores, [0.0]]) - np.concatenate([*kept.logprobs, [0.0]]))
    worst = float(
        apart.mean() if dtype == "bfloat16" else apart.max()
    )  # numpy's max, unlike Python's, is NaN for a NaN
    if not worst <= TOLERANCE[dtype]:
        raise MeritError(
            f"policy {name}: the engine's log-probabilities differ from the trainer's by {worst:.3g} nats "
            f"(allowed: {TOLERANCE[dtype]:g}); the engine does not speak with the adapter in {folder}"
        )
    return worst
