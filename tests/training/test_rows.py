"""Rows on disk: an exact round trip of ragged arrays, nothing pickled."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.training.rows import Rows
from tests.models import same

IDS = st.lists(st.integers(-(2**31), 2**31 - 1), max_size=5).map(lambda x: np.array(x, np.int32))
LOGPROBS = st.lists(st.floats(-50, 0, width=32), max_size=5).map(lambda x: np.array(x, np.float32))
ROW = st.tuples(IDS, IDS, LOGPROBS, st.floats(-9, 9))


@settings(max_examples=60, deadline=None)
@given(st.lists(ROW, max_size=6), st.floats(0.1, 2), st.booleans())
def test_what_is_loaded_is_what_was_saved(given_rows, temperature, paired):
    prompts, completions, logprobs, values = (
        (list(column) for column in zip(*given_rows, strict=True)) if given_rows else ([], [], [], [])
    )
    rows = Rows(prompts, completions, logprobs, np.array(values, np.float64), temperature, paired)
    with tempfile.TemporaryDirectory() as folder:
        rows.save(Path(folder) / "a.npz")
        assert [f.name for f in Path(folder).iterdir()] == ["a.npz"]
        found = Rows.load(Path(folder) / "a.npz")
        with np.load(Path(folder) / "a.npz", allow_pickle=False) as file:
            assert all(array.dtype != object for array in file.values())
    assert same(found.prompts, prompts) and same(found.completions, completions) and same(found.logprobs, logprobs)
    assert np.array_equal(found.advantages, rows.advantages)
    assert (found.temperature, found.paired, len(found)) == (temperature, paired, len(given_rows))
    assert found.lengths.tolist() == [len(p) + len(c) for p, c, _, _ in given_rows]
