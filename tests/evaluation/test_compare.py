"""Paired comparisons of shares, against enumeration by hand, and intervals over seeds, against tables."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from apps.evaluation import compare, rung, seeds, statistics
from apps.evaluation.compare import Row

ONE = np.array([[1.0]])


def table(*counts: tuple[float, int]) -> np.ndarray:
    """(tasks, one share, 2)."""
    return np.array(counts, np.float64)[:, None, :]


def by_all_swaps(first: np.ndarray, second: np.ndarray) -> float:
    """The two-sided p with every pattern of swaps, in plain Python."""

    def apart(swaps) -> float:
        a = [s if swap else f for f, s, swap in zip(first, second, swaps, strict=True)]
        b = [f if swap else s for f, s, swap in zip(first, second, swaps, strict=True)]
        share = [sum(h for [[h, _]] in rows) / sum(n for [[_, n]] in rows) for rows in (a, b)]
        return share[1] - share[0]

    seen = abs(apart([False] * len(first)))
    patterns = list(itertools.product([False, True], repeat=len(first)))
    return sum(abs(apart(p)) >= seen - 1e-9 for p in patterns) / len(patterns)


def test_a_difference_of_shares_by_hand():
    first, second = table((1, 2), (0, 1), (2, 4)), table((2, 2), (1, 3), (3, 3))
    (row,) = compare.swapped([("x",)], first, second, ONE)
    assert (row.first, row.second) == (3 / 7, 6 / 8) and row.difference == pytest.approx(6 / 8 - 3 / 7)
    assert row.low <= row.difference <= row.high


@given(st.integers(0, 10**6))
def test_p_is_that_of_all_swaps(seed):
    rng = np.random.default_rng(seed)
    first, second = (table(*[(rng.integers(0, n + 1), n) for n in rng.integers(1, 4, 7)]) for _ in range(2))
    (row,) = compare.swapped([("x",)], first, second, ONE)
    exact = by_all_swaps(first.tolist(), second.tolist())
    assert row.p == pytest.approx(exact, abs=4.5 * (exact * (1 - exact) / statistics.DRAWS) ** 0.5 + 2e-4)


def test_with_one_observation_a_task_it_is_the_sign_flip_test():
    rng = np.random.default_rng(0)
    before, after = rng.integers(0, 2, 40), rng.integers(0, 2, 40)
    (row,) = compare.swapped([("x",)], table(*[(x, 1) for x in before]), table(*[(x, 1) for x in after]), ONE)
    assert row.p == pytest.approx(statistics.paired(before, after).p, abs=0.02)


def test_equal_teams_do_not_differ():
    same = table((1, 2), (0, 1), (2, 4))
    (row,) = compare.swapped([("x",)], same, same, ONE)
    assert (row.difference, row.low, row.high, row.p) == (0, 0, 0, 1)


def test_holm_by_hand():
    rows = compare.corrected([Row((str(p),), 0, 0, 0, 0, 0, p) for p in (0.04, 0.01, 0.03, 0.5)])
    assert [row.holm for row in rows] == pytest.approx([0.09, 0.04, 0.09, 0.5])


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.999])
def test_students_quantile(confidence):
    for freedom in range(1, 60):
        expected = stats.t.ppf((1 + confidence) / 2, freedom)
        assert seeds.quantile(freedom, confidence) == pytest.approx(expected, rel=1e-6)


def test_the_spread_of_three_seeds_by_hand():
    """Mean 2, s = 1, t(2) = 4.3027."""
    found = seeds.spread([1.0, 3.0, None, 2.0])
    assert (found.mean, found.n) == (2, 3)
    assert found.high - 2 == pytest.approx(4.302653 / 3**0.5, rel=1e-6) == 2 - found.low
    assert seeds.spread([0.5]) == seeds.Spread(0.5, None, None, 1)
    assert seeds.spread([None]) == seeds.Spread(None, None, None, 0)


def test_who_survives_by_hand():
    scores = {"a": 0.5, "b": 0.7, "c": 0.5, "d": 0.9}
    assert rung.survivors(scores, 2) == ["b", "d"]
    assert rung.survivors(scores, 3) == ["a", "b", "d"]  # of equals the earlier one
    assert rung.survivors(scores, 9) == list(scores)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9), st.integers(1, 9))
def test_no_survivor_is_worse_than_one_left_out(values, keep):
    scores = {str(i): value for i, value in enumerate(values)}
    kept = rung.survivors(scores, keep)
    assert len(kept) == min(keep, len(values))
    assert all(scores[k] >= scores[o] for k in kept for o in scores if o not in kept)
