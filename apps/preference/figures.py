"""How well scores order pairs: accuracy, AUC, and whether the odds that they give are true. Intervals draw whole prompts.

A pair is right where the preferred text scores higher, a tie counts half. Under Bradley and Terry σ(r_1 − r_2) is the chance that
the first is preferred: `brier` is its mean squared distance from what was preferred (.25 for a shrug), `calibration_error` the
mean gap between stated chance and share over ten bins of the chance of the favourite, weighed by their pairs (Naeini et al. 2015).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from apps.preference.agreement import estimate
from apps.reward_model.figures import GRID, auc

BINS = 10
LIKE = 1.2  # so many times as long is still of like length


def figures(
    units: Sequence[str], scores: np.ndarray, preferred: np.ndarray, lengths: np.ndarray | None = None
) -> dict[str, Any]:
    """`scores` (pairs, 2) of first and second, logits; `preferred` (pairs,) 1 for the first, 0 for the second.

    `lengths` (pairs, 2): with them the accuracy on pairs of like length too, where length says nothing.
    """
    apart = (scores[:, 0] - scores[:, 1]) * np.where(preferred >= 0.5, 1, -1)
    hits = np.where(apart > 0, 1.0, np.where(apart < 0, 0.0, 0.5))
    chance = 1 / (1 + np.exp(-np.clip(apart, -60, 60)))  # of what was preferred
    return {
        "pairs": len(apart),
        "accuracy": _mean(units, hits),
        "accuracy_of_like_length": None if lengths is None else _mean(units, hits, like(lengths)),
        "auc": _auc(units, scores, preferred),
        "brier": _mean(units, (1 - chance) ** 2),
        "calibration_error": estimate(units, _bins(chance), _gap),
        "margin": float(apart.mean()) if len(apart) else None,
        "spread": float(scores.std()) if len(apart) else None,
        "reward": float(scores.mean()) if len(apart) else None,
    }


def like(lengths: np.ndarray) -> np.ndarray:
    """(pairs,): 1 where the longer text is at most LIKE times as long as the other."""
    return (lengths.max(axis=1) <= LIKE * lengths.min(axis=1)).astype(np.float64)


def _mean(units: Sequence[str], values: np.ndarray, weights: np.ndarray | None = None) -> dict[str, float | None]:
    weights = np.ones_like(values) if weights is None else weights
    return estimate(units, np.stack([values * weights, weights], axis=1), lambda t: t[..., 0] / t[..., 1])


def _auc(units: Sequence[str], scores: np.ndarray, preferred: np.ndarray) -> dict[str, float | None]:
    """The chance that a preferred text, of whatever prompt, scores above one that is not."""
    places, first = np.unique(scores.ravel(), return_inverse=True)[1].ravel(), preferred >= 0.5
    unit = np.unique(np.repeat(np.asarray(units), 2), return_inverse=True)[1]
    return auc(unit, places / GRID, np.stack([first, ~first], axis=1).ravel())


def _bins(chance: np.ndarray) -> np.ndarray:
    """(pairs, 3 BINS): in the bin of the favourite's chance 1, that chance, and whether the favourite was preferred."""
    favourite = np.maximum(chance, 1 - chance)
    right = np.where(chance > 0.5, 1.0, np.where(chance < 0.5, 0.0, 0.5))
    place = np.minimum(((favourite - 0.5) * 2 * BINS).astype(int), BINS - 1)
    columns = np.zeros((len(chance), BINS, 3))
    columns[np.arange(len(chance)), place] = np.stack([np.ones_like(chance), favourite, right], axis=1)
    return columns.reshape(len(chance), -1)


def _gap(sums: np.ndarray) -> np.ndarray:
    table = sums.reshape(*sums.shape[:-1], BINS, 3)
    return np.abs(table[..., 1] - table[..., 2]).sum(axis=-1) / table[..., 0].sum(axis=-1)


def table(found: dict[str, dict[str, Any]]) -> str:
    """For the terminal: a column a scorer."""
    names = {
        "accuracy": "pairs ordered right",
        "accuracy_of_like_length": "  those of like length",
        "auc": "AUC over all texts",
        "brier": "Brier score of the odds",
    }
    names["calibration_error"] = "calibration error"
    pairs = next(iter(found.values()))["pairs"] if found else 0
    lines = [f"{f'{pairs} held-out pairs':<26}" + "".join(f"{who:<24}" for who in found)]
    for key, name in names.items():
        cells = [cell(figures.get(key)) for figures in found.values()]
        lines.append(f"{name:<26}" + "".join(f"{shown:<24}" for shown in cells))
    return "\n".join(line.rstrip() for line in lines)


def cell(figure: dict[str, float | None] | None) -> str:
    """A figure with its interval."""
    if not figure or figure["value"] is None:
        return "-"
    return f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"
