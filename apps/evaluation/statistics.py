"""Intervals and paired tests: how sure a measured difference is. Pure functions; whatever draws is seeded.

Two systems are compared on the same tasks and never by two unpaired means. The unit that is drawn or exchanged is the
task: samples of one task are alike, and counting them as independent would promise too much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb, gcd, isnan, nan, sqrt
from statistics import NormalDist

import numpy as np

DRAWS, BLOCK = 10_000, 500  # bootstrap and sign-flip draws, and how many are made at a time (memory)
DUST = 1e-12  # what rounding makes of a spread that is 0


@dataclass(frozen=True, slots=True)
class Interval:
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its interval; NaN, all three, where there was nothing to measure."""

    value: float
    low: float
    high: float
    n: int  # how many observations it is a share of, whatever tasks they come from


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
    return Interval(max(0.0, min(p, (centre - half) / scale)), min(1.0, max(p, (centre + half) / scale)))


def estimates(
    hits: np.ndarray, of: np.ndarray, weights: np.ndarray, confidence: float = 0.95, seed: int = 0
) -> list[Estimate]:
    """Figures Σ w·share with intervals that draw whole tasks, where share = Σ hits/Σ of over the tasks.

    hits, of (tasks, shares): how many of how many in each task; hits may be fractions, 0 ≤ hits ≤ of. weights (figures,
    shares): which shares a figure adds, 0 for the others. All figures see the same draws of tasks.
    """
    with np.errstate(invalid="ignore"):
        drawn = np.divide(*np.split(resampled(np.hstack([hits, of]), seed), 2, axis=1))
    return [estimate(hits[:, use], of[:, use], w[use], drawn[:, use], confidence) for w in weights for use in [w != 0]]


def estimate(
    hits: np.ndarray, of: np.ndarray, weights: np.ndarray, drawn: np.ndarray, confidence: float = 0.95
) -> Estimate:
    """One figure of `estimates`, from its own shares alone; `drawn` (draws, shares) are their values over drawn tasks.

    Tasks are drawn whole, with replacement, so that the samples of a task and the turns of a play stay together: a
    cluster bootstrap (Efron and Tibshirani 1993; Field and Welsh 2007). A share has the interval of `limit`; a sum of
    several has the percentiles of what was drawn, or `mover`'s where a share in it is the same in every draw.
    """
    count = of.sum(axis=0)
    with np.errstate(invalid="ignore"):
        shares = hits.sum(axis=0) / count
    value = float(weights @ shares)
    if isnan(value):
        return Estimate(nan, nan, nan, int(count.sum()))
    drawn = drawn[np.isfinite(drawn).all(axis=1)]  # the drawn tasks may be none of those that a share is about
    if len(weights) > 1 and (np.ptp(drawn, axis=0) > DUST).all():
        interval = percentiles(drawn @ weights, confidence)
    else:
        limits = [limit(*columns, confidence) for columns in zip(hits.T, of.T, drawn.T, strict=True)]
        interval = mover(weights, shares, limits)
    return Estimate(value, interval.low, interval.high, int(count.sum()))


def limit(hits: np.ndarray, of: np.ndarray, drawn: np.ndarray, confidence: float) -> Interval:
    """The interval of one share, (tasks,), (tasks,) and (draws,): Wilson's, with as many trials as tell as much.

    p(1 − p)/trials is the variance of the share over the draws (an effective sample size: Kish 1965; Franco et al.
    2019). Unlike the percentiles of the draws it is not too narrow where hits are few. Each task counts as a trial where
    each has one right/wrong observation, and where the draws show no variance (all right, all wrong, a single task).
    """
    share, tasks = hits.sum() / of.sum(), np.count_nonzero(of)
    one_each = tasks == of.sum() and np.isin(hits, (0, 1)).all()
    trials = tasks if one_each or np.ptp(drawn) <= DUST else share * (1 - share) / drawn.var()
    return wilson(trials * share, trials, confidence)


def mover(weights: np.ndarray, shares: np.ndarray, limits: Sequence[Interval]) -> Interval:
    """The interval of Σ w·share from the limits of each share, taken as independent (Zou and Donner 2008).

    Unlike the delta method it has a width where a share is 0 or 1.
    """
    terms, total = weights * shares, float(weights @ shares)
    ends = np.sort([(w * one.low, w * one.high) for w, one in zip(weights, limits, strict=True)])
    low, high = np.sqrt(((ends - terms[:, None]) ** 2).sum(axis=0))
    return Interval(total - float(low), total + float(high))


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
    per_task = np.asarray(per_task, dtype=np.float64)
    return percentiles(resampled(per_task[:, None], seed, draws)[:, 0] / len(per_task), confidence)


def resampled(per_task: np.ndarray, seed: int = 0, draws: int = DRAWS) -> np.ndarray:
    """Sums over as many tasks as there are, drawn with replacement: (tasks, columns) to (draws, columns)."""
    n, rng, sums = len(per_task), np.random.default_rng(seed), []
    for size in (min(BLOCK, draws - start) for start in range(0, draws, BLOCK)):
        places = rng.integers(0, n, (size, n)) + n * np.arange(size)[:, None]
        times = np.bincount(places.ravel(), minlength=size * n).reshape(size, n)  # how often each task was drawn
        sums.append(times @ per_task)
    return np.concatenate(sums)


def percentiles(drawn: np.ndarray, confidence: float) -> Interval:
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
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
