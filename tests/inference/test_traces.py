"""Traces on disk: an exact round trip, shared turns, streams, torn files, size."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.inference import traces
from apps.records import MeritError, Sampling, Trace, Turn

TEXT = st.text(st.characters(), max_size=12)  # surrogates and NUL too
FLOATS = st.floats(width=32, allow_nan=False)
IDS = st.lists(st.integers(-(2**31), 2**31 - 1), max_size=4).map(lambda x: np.array(x, np.int32))


@st.composite
def some_turn(draw):
    completion = draw(IDS)
    logprobs = draw(st.lists(FLOATS, min_size=len(completion), max_size=len(completion)))
    return Turn(
        agent=draw(TEXT),
        path=draw(TEXT),
        prompt=draw(TEXT),
        text=draw(TEXT),
        prompt_ids=draw(IDS),
        completion_ids=completion,
        logprobs=np.array(logprobs, np.float32),
        policy=draw(TEXT),
        sampling=draw(st.builds(Sampling, st.floats(0, 3), st.integers(1, 99), st.floats(0.1, 1), st.integers(0, 9))),
        seed=draw(st.integers(0, 2**64 - 1)),
        finish=draw(st.sampled_from(["stop", "length", "substitute"])),
        stand_in=draw(TEXT),
    )


@st.composite
def some_traces(draw):
    """Traces over a few turns, so that some turns are in several."""
    turns = draw(st.lists(some_turn(), max_size=5))
    members = st.lists(st.sampled_from(turns), max_size=6) if turns else st.just([])
    return draw(st.lists(st.builds(Trace, TEXT, TEXT, members.map(tuple), TEXT, st.booleans()), max_size=6))


def plain(trace):
    """A trace as values that compare."""
    facts = [
        {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in zip(turn.__slots__, values(turn), strict=True)}
        for turn in trace.turns
    ]
    return (trace.task, trace.sample, facts, trace.answer, trace.converged)


def values(turn):
    return [getattr(turn, f.name) for f in dataclasses.fields(turn)]


def shape(played):
    """Which turns are one and the same."""
    first: dict[int, int] = {}
    return [[first.setdefault(id(turn), len(first)) for turn in trace.turns] for trace in played]


def simple(text="x", ids=(1, 2), prompt_ids=(3,), **more):
    arrays = np.array(prompt_ids, np.int32), np.array(ids, np.int32), np.zeros(len(ids), np.float32)
    return Turn(**{"agent": "a", "path": "a.0", "prompt": "p", "text": text, "prompt_ids": arrays[0],
                   "completion_ids": arrays[1], "logprobs": arrays[2], "policy": "base", "sampling": Sampling(),
                   "seed": 1} | more)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(some_traces(), st.integers(1, 4))
def test_what_is_read_is_what_was_written(written, at_once):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / traces.FILE
        traces.write(path, written)
        for found in (traces.read(path), list(traces.stream([path], at_once))):
            assert [plain(t) for t in found] == [plain(t) for t in written]
            assert [t.turns[0].logprobs.dtype for t in found if t.turns] == [np.float32] * sum(
                bool(t.turns) for t in written
            )
        assert shape(traces.read(path)) == shape(written)
        assert list(Path(folder).iterdir()) == [path]


def test_equal_ids_of_different_words_keep_their_prompts(tmp_path):
    """Two words that a tokenizer does not know have the same id."""
    turns = simple(prompt="Solve: foo"), simple(prompt="Solve: bar")
    traces.write(tmp_path / "t.h5", [Trace("t", "0", turns, "", True)])
    assert [t.prompt for t in traces.read(tmp_path / "t.h5")[0].turns] == ["Solve: foo", "Solve: bar"]


def test_shared_turns_stay_shared_also_across_what_is_read_at_once(tmp_path):
    """The leaves of a tree: 600 traces on one root, three to a branch."""
    root, branches = simple("root"), [simple(str(i)) for i in range(200)]
    leaves = [Trace("t", f"0.{i}", (root, branches[i // 3], simple(f"leaf {i}")), "", True) for i in range(600)]
    traces.write(tmp_path / "t.h5", leaves)
    for found in (traces.read(tmp_path / "t.h5"), list(traces.stream([tmp_path / "t.h5"], 7))):
        assert shape(found) == shape(leaves)
    import h5py

    with h5py.File(tmp_path / "t.h5") as file:
        assert len(file["turns/seed"]) == 1 + 200 + 600
        assert len(file["prompts/ids/offsets"]) == 2  # one prompt


def test_a_stream_reads_many_files_in_order(tmp_path):
    paths = [tmp_path / f"{i}.h5" for i in range(3)]
    for i, path in enumerate(paths):
        traces.write(path, [Trace(f"{i}.{k}", "0", (simple(),), "", True) for k in range(i)])
    assert [t.task for t in traces.stream(paths, 1)] == ["1.0", "2.0", "2.1"]


def test_a_torn_file_is_named(tmp_path):
    path = tmp_path / "t.h5"
    traces.write(path, [Trace("t", str(i), tuple(simple(str(k)) for k in range(9)), "", True) for i in range(50)])
    whole = path.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(MeritError, match="t.h5 is no readable trace file"):
            traces.read(path)
    with pytest.raises(MeritError, match="missing.h5"):
        traces.read(tmp_path / "missing.h5")


def test_a_file_of_another_format_is_refused(tmp_path):
    import h5py

    traces.write(tmp_path / "t.h5", [])
    with h5py.File(tmp_path / "t.h5", "a") as file:
        file.attrs["format"] = 99
    with pytest.raises(MeritError, match="format 99, this Merit reads 1"):
        traces.read(tmp_path / "t.h5")


def test_repetitive_traces_take_less_room_than_their_arrays(tmp_path):
    rng = np.random.default_rng(0)
    played = [
        Trace(
            "t", str(i), tuple(simple("words " * 20, rng.integers(0, 90, 40), range(100)) for _ in range(4)), "", True
        )
        for i in range(200)
    ]
    traces.write(tmp_path / "t.h5", played)
    raw = sum(
        t.prompt_ids.nbytes + t.completion_ids.nbytes + t.logprobs.nbytes for trace in played for t in trace.turns
    )
    assert (tmp_path / "t.h5").stat().st_size < raw / 3
