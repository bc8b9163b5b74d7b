"""Intervals and paired tests: how sure a measured difference is. Pure functions; whatever draws is seeded.

Two systems are compared on the same tasks and never by two unpaired means. The unit that is drawn or exchanged is the
task: samples of one task are alike, and counting them as independent would promise too much.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb, gcd, sqrt
from statistics import NormalDist

import numpy as np

from apps.evaluation.metrics import Detection

DRAWS, BLOCK = 10_000, 500  # bootstrap and sign-flip draws, and how many are made at a time (memory)


@dataclass(frozen=True, slots=True)
class Interval:
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Paired:
    """A paired comparison, after minus before."""

    difference: float  # of the mean scores
    low: float  # 95 % interval of the difference
    high: float
    p: float  # two-sided: as far from 0, in either direction, if before and after were exchangeable
    p_better: float  # one-sided: as high
    p_worse: float  # one-sided: as low


@dataclass(frozen=True, slots=True)
class McNemar:
    """The discordant tasks of two systems, and the exact two-sided test of them."""

    gained: int  # wrong before, right after
    lost: int  # right before, wrong after
    p: float


def wilson(successes: float, trials: int, confidence: float = 0.95) -> Interval:
    """The score interval of a proportion (Wilson 1927): sensible also at 0 and 1; (0, 1) without trials."""
    if not trials:
        return Interval(0.0, 1.0)
    z, p = normal_quantile(confidence), successes / trials
    centre, scale = p + z * z / (2 * trials), 1 + z * z / trials
    half = z * sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials))
    return Interval(max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale))


def balanced_accuracy(critic: Detection, confidence: float = 0.95) -> Interval:
    """The interval of (recall + specificity)/2, from the Wilson limits of both (MOVER; Zou and Donner 2008).

    Unlike the delta method it has a width where a rate is 0 or 1. Verdicts are taken as independent. (0, 1) where a
    class is missing.
    """
    wrong, right = critic.true_positives + critic.false_negatives, critic.true_negatives + critic.false_positives
    if not wrong or not right:
        return Interval(0.0, 1.0)
    recall, specificity = (
        wilson(critic.true_positives, wrong, confidence),
        wilson(critic.true_negatives, right, confidence),
    )
    low = sqrt((critic.recall - recall.low) ** 2 + (critic.specificity - specificity.low) ** 2) / 2
    high = sqrt((recall.high - critic.recall) ** 2 + (specificity.high - critic.specificity) ** 2) / 2
    return Interval(critic.balanced_accuracy - low, critic.balanced_accuracy + high)


def mcnemar(before: np.ndarray, after: np.ndarray) -> McNemar:
    """McNemar's exact test of right/wrong on the same tasks, (n,) and (n,): lost ~ Binomial(gained + lost, ½)."""
    before, after = same_tasks(np.asarray(before) >= 0.5, np.asarray(after) >= 0.5)
    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    tail = sum(comb(gained + lost, i) for i in range(min(gained, lost) + 1)) / 2 ** (gained + lost)
    return McNemar(gained, lost, min(1.0, 2 * tail))


def paired(before: np.ndarray, after: np.ndarray, confidence: float = 0.95, seed: int = 0) -> Paired:
    """Compares scores on the same n tasks, (n,) or (n, k) with k samples a task; k may differ.

    The interval is a bootstrap over tasks, the p values are of the sign-flip test on the tasks' mean differences.
    With one right/wrong sample a task the two-sided p equals McNemar's.
    """
    before, after = same_tasks(np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64))
    before, after = (scores[:, None] if scores.ndim == 1 else scores for scores in (before, after))
    differences = after.mean(axis=1) - before.mean(axis=1)
    if not len(differences) or not np.isfinite(differences).all():
        raise ValueError(f"paired scores are numbers and at least one task; got {before.shape} and {after.shape}")
    steps = before.shape[1] * after.shape[1] // gcd(before.shape[1], after.shape[1])
    interval = bootstrap(differences, confidence, seed)
    return Paired(float(differences.mean()), interval.low, interval.high, *sign_flip(differences, steps, seed))


def bootstrap(per_task: np.ndarray, confidence: float = 0.95, seed: int = 0, draws: int = DRAWS) -> Interval:
    """The percentile interval of a mean over tasks, (n,): tasks are drawn with replacement."""
    per_task, rng = np.asarray(per_task, dtype=np.float64), np.random.default_rng(seed)
    blocks = [min(BLOCK, draws - start) for start in range(0, draws, BLOCK)]
    means = [per_task[rng.integers(0, len(per_task), (block, len(per_task)))].mean(axis=1) for block in blocks]
    low, high = np.quantile(np.concatenate(means), [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))


def sign_flip(differences: np.ndarray, steps: int = 1, seed: int = 0) -> tuple[float, float, float]:
    """(two-sided, better, worse) p of a mean difference when each task's sign is a coin's throw.

    Exact where every difference is a whole number of 1/`steps` (right/wrong scores); else by seeded draws, and then
    never below 1/(draws + 1).
    """
    whole = np.rint(differences * steps)
    if np.abs(differences * steps - whole).max() < 1e-6:
        return flip_exactly(whole.astype(int))
    return flip_by_draws(differences, seed)


def flip_exactly(whole: np.ndarray) -> tuple[float, float, float]:
    """All 2**n sign patterns of integers at once: the distribution of Σ ±|d| as a product of (1 + x^|d|)/2."""
    sizes = np.abs(whole[whole != 0])
    chances = np.zeros(int(sizes.sum()) + 1)
    chances[0] = 1.0
    for size in sizes:
        chances[size:] = (chances[size:] + chances[:-size]) / 2
        chances[:size] /= 2
    totals = 2 * np.arange(len(chances)) - len(chances) + 1
    tails = [np.abs(totals) >= abs(whole.sum()), totals >= whole.sum(), totals <= whole.sum()]
    return tuple(min(1.0, float(chances[tail].sum())) for tail in tails)


def flip_by_draws(differences: np.ndarray, seed: int, draws: int = DRAWS) -> tuple[float, float, float]:
    """As above by drawing signs; the observed pattern counts as one of the draws (Phipson and Smyth 2010)."""
    rng, total, beyond = np.random.default_rng(seed), differences.sum(), np.ones(3)
    dust = 1e-9 * np.abs(differences).sum()
    for start in range(0, draws, BLOCK):
        signs = rng.integers(0, 2, (min(BLOCK, draws - start), len(differences))) * 2 - 1
        sums = signs @ differences
        beyond += [
            (np.abs(sums) >= abs(total) - dust).sum(),
            (sums >= total - dust).sum(),
            (sums <= total + dust).sum(),
        ]
    return tuple((beyond / (draws + 1)).tolist())


def normal_quantile(confidence: float) -> float:
    """z with `confidence` of a standard normal within ±z."""
    return NormalDist().inv_cdf((1 + confidence) / 2)


def same_tasks(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if before.shape[0] != after.shape[0]:
        raise ValueError(f"a paired test wants the same tasks; got {before.shape[0]} before and {after.shape[0]} after")
    return before, after
