"""The projection onto {Σv = target, |v| ≤ 1}: its laws, hand-worked numbers, and a reference by bisection."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.credit.conserve import project

RAW = st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=8)


def by_bisection(raw: list[float], target: float) -> list[float]:
    """The same shift, found by halving an interval; plain Python."""
    low, high = -10.0, 10.0
    for _ in range(200):
        middle = (low + high) / 2
        total = sum(max(-1.0, min(1.0, v + middle)) for v in raw)
        low, high = (middle, high) if total < target else (low, middle)
    return [max(-1.0, min(1.0, v + high)) for v in raw]


@pytest.mark.parametrize(
    ("raw", "target", "values"),
    [
        ([0, -1, 0], -1, [0, -1, 0]),  # nothing to do
        ([0, -1, 0], 0, [1 / 3, -2 / 3, 1 / 3]),
        ([0.9, 0.0], 1.5, [1.0, 0.5]),  # one reaches its bound, the other takes the rest
        ([-2.0, 0.0], -1.0, [-1.0, 0.0]),
        ([5.0], 0.25, [0.25]),
        ([0.3, 0.3], 2.0, [1.0, 1.0]),
    ],
)
def test_by_hand(raw, target, values):
    assert project(raw, target) == pytest.approx(values)


@settings(deadline=None)
@given(RAW, st.floats(-1, 1))
def test_bounded_conserving_ordered_and_as_the_reference(raw, part):
    target = part * len(raw)
    values = project(raw, target)
    assert values.sum() == pytest.approx(target, abs=1e-9)
    assert np.abs(values).max() <= 1
    order = np.argsort(raw, kind="stable")
    assert (np.diff(values[order]) >= -1e-12).all()
    assert values == pytest.approx(by_bisection(raw, target), abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(RAW, st.floats(-1, 1), st.integers(0, 1000))
def test_no_other_feasible_point_is_nearer(raw, part, seed):
    values = project(raw, part * len(raw))
    other = project(np.random.default_rng(seed).normal(size=len(raw)), part * len(raw))
    assert np.sum((values - raw) ** 2) <= np.sum((other - raw) ** 2) + 1e-9


def test_an_impossible_sum_is_refused():
    with pytest.raises(ValueError, match="2 values within ±1 cannot sum to 2.5"):
        project([0, 0], 2.5)
    with pytest.raises(ValueError, match="0 values"):
        project([], -0.5)
