"""What a reward model is trained on: which rows, and at which tokens it is taught what."""

from __future__ import annotations

import numpy as np
import pytest

from apps.preference import rows
from apps.preference.pairs import Pair
from apps.records import MeritError
from apps.training.objectives import bradley_terry, outcome

PAIRS = [
    Pair("p", "good", "worst", preferred=1.0, margin=2.0),
    Pair("p", "good", "fine", preferred=0.0),
    Pair("q", "x", "y", preferred=0.75),
]


def encode(pair, text):
    return np.array([len(pair.prompt)], np.int32), np.arange(len(text), dtype=np.int32)


def test_the_preferred_stands_first_with_the_margin_at_its_end():
    found = rows.rows_of(PAIRS, bradley_terry.NEEDS, encode)
    found.check(bradley_terry.NEEDS)
    assert found.paired and [len(c) for c in found.completions] == [4, 5, 4, 4, 1, 1]
    targets = [list(column[np.isfinite(column)]) for column in found.columns["targets"]]
    assert targets == [[2.0], [], [], [], [], []]
    assert found.columns["targets"][0][-1] == 2.0
    assert len(found.completions[0]) == 4 and len(found.completions[2]) == len("fine")


def test_a_text_is_taught_how_often_it_was_preferred():
    """`good` won once and lost once."""
    found = rows.rows_of(PAIRS, outcome.NEEDS, encode)
    ends = [column[-1] for column in found.columns["targets"]]
    assert not found.paired and ends == [0.5, 0.0, 1.0, 0.75, 0.25]
    assert all(np.isnan(column[:-1]).all() for column in found.columns["targets"])


def test_what_nobody_decided_teaches_nothing():
    even = [Pair("p", "a", "b", preferred=0.5), Pair("p", "a", "b"), Pair("p", "a", "b", preferred=0.6)]
    assert rows.decided(even, 0.0) == even[2:] and rows.decided(even, 0.2) == []
    with pytest.raises(MeritError, match="there are none: more plays"):
        rows.rows_of([], bradley_terry.NEEDS, encode)
