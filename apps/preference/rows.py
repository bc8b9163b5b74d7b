"""From pairs to the rows that a reward model is trained on: two rows a pair, or one a text."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np

from apps.preference.pairs import Pair
from apps.records import MeritError
from apps.training.rows import Rows

Encoded = tuple[np.ndarray, np.ndarray]  # ids of a prompt, of a completion


def decided(pairs: Sequence[Pair], least: float) -> list[Pair]:
    """Those of which it is known which is better: the preference is at least `least` from even."""
    return [p for p in pairs if p.preferred is not None and abs(p.preferred - 0.5) > max(least, 1e-9) - 1e-12]


def rows_of(pairs: Sequence[Pair], needs: Collection[str], encode: Callable[[Pair, str], Encoded]) -> Rows:
    """Rows for the trainer, with what the scalar head is taught as column `targets`, at the last token.

    Where the objective compares pairs, the preferred completion stands first and its target is the pair's margin. Else
    every text is a row, and its target how often it was preferred. MeritError without any pair.
    """
    if not pairs:
        raise MeritError(
            "a reward model learns from pairs of which one is better, and there are none: more plays of each task, another "
            "temperature, or easier tasks make right and wrong answers to the same question"
        )
    if "pairs" in needs:
        taught = [(pair, text, m) for pair in pairs for text, m in ((pair.chosen, pair.margin), (pair.rejected, None))]
    else:
        taught = list(outcomes(pairs))
    read = [encode(pair, text) for pair, text, _ in taught]
    targets = [at_the_end(len(ids), target) for (_, ids), (_, _, target) in zip(read, taught, strict=True)]
    return Rows(
        [prompt for prompt, _ in read],
        [ids for _, ids in read],
        [np.zeros(0, np.float32)] * len(read),
        np.ones(len(read)),
        paired="pairs" in needs,
        columns={"targets": targets},
    )


def outcomes(pairs: Sequence[Pair]):
    """(a pair that it stands in, the text, its mean preference) of every distinct text."""
    said: dict[tuple[str, str], tuple[Pair, list[float]]] = {}
    for pair in pairs:
        for text, preferred in ((pair.first, pair.preferred), (pair.second, 1 - pair.preferred)):
            said.setdefault((pair.prompt, text), (pair, []))[1].append(preferred)
    for (_, text), (pair, found) in said.items():
        yield pair, text, float(np.mean(found))


def at_the_end(length: int, target: float | None) -> np.ndarray:
    """(C,): the target after the last token, NaN elsewhere and where there is none."""
    column = np.full(length, np.nan, np.float32)
    if target is not None:
        column[-1] = target
    return column
