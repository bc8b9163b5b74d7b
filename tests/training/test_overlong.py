"""The punishment of turns that run long, by hand and against the three cases of the paper."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.records import Sampling
from apps.training import overlong
from tests.models import ids
from tests.training.test_build import trace, turn, values


@pytest.mark.parametrize(("length", "expected"), [(1, 0), (12, 0), (13, -0.25), (14, -0.5), (16, -1), (20, -1)])
def test_by_hand(length, expected):
    """L_max 16, buffer 4: nothing up to 12 tokens, a quarter for each more."""
    assert overlong.penalty(length, 16, 4) == expected


@given(st.integers(0, 300), st.integers(1, 200), st.integers(1, 200))
def test_the_papers_three_cases(length, longest, buffer):
    if length <= longest - buffer:
        expected = 0.0
    elif length <= longest:
        expected = ((longest - buffer) - length) / buffer
    else:
        expected = -1.0
    assert overlong.penalty(length, longest, buffer) == pytest.approx(expected)


def test_it_is_added_to_the_credit_of_each_turn_by_its_own_length():
    limits = {"sampling": Sampling(max_new_tokens=4)}
    short, long = (
        turn("solver", completion_ids=ids(1, 2), **limits),
        turn("critic", completion_ids=ids(1, 2, 3, 4), **limits),
    )
    turns = values([trace(0, short, long)], [[0.5, 0.25]])
    assert [row.value for _, row in overlong.shaped(turns, 2)] == [0.5, -0.75]
    assert [t for t, _ in overlong.shaped(turns, 2)] == [short, long]
    assert overlong.shaped(turns, 0) == turns
