"""Keys depend on all that decides a result, damaged artifacts are not found, and a run has one driver."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps import artifacts
from apps.records import MeritError, Options, Sampling
from workflows.store import Store, lock

ROOT = Path(__file__).parents[2]
words = st.text("abc", min_size=1, max_size=2)
parts = st.tuples(words, words, st.dictionaries(words, st.integers(0, 2), max_size=2), st.lists(words, max_size=2))


def make(store: Store, key: str, text: str = "x") -> None:
    with artifacts.new(store.root, "grade", key, {}) as folder:
        (folder / "file").write_text(text)


@given(parts, parts)
def test_keys_are_equal_exactly_where_everything_is(a, b):
    assert (Store.key(*a) == Store.key(*b)) == (a == b)


def test_a_key_takes_models_dataclasses_and_paths():
    class Given(Options):
        rate: float = 0.5
        folder: Path = Path("here")

    plain = {"leaf": {"rate": 0.5, "folder": "here"}, "sampling": {"temperature": 1.0, "max_new_tokens": 64}}
    plain["sampling"] |= {"top_p": 1.0, "top_k": 0}
    typed = {"leaf": Given(), "sampling": Sampling()}
    assert Store.key("train", "code", typed, {}) == Store.key("train", "code", plain, {})
    assert re.fullmatch("[0-9a-f]{32}", Store.key("train", "code", typed, {}))


def test_what_is_made_is_found_and_nothing_else(tmp_path):
    store, key = Store(tmp_path), Store.key("grade", "code", {}, {})
    assert store.find("grade", key) is None
    make(store, key)
    found = store.find("grade", key)
    assert (found.stage, found.key) == ("grade", key)
    assert (Path(found.path) / "file").read_text() == "x"
    assert store.find("rollout", key) is None


def test_a_damaged_artifact_is_moved_aside_and_counts_as_absent(tmp_path, caplog):
    store, key = Store(tmp_path), "ab" + "1" * 30
    make(store, key)
    path = artifacts.locate(tmp_path, "grade", key)
    (path / "file").write_text("y")
    assert store.find("grade", key) is None
    assert not path.exists()
    assert "file has other contents" in caplog.text
    [aside] = (tmp_path / "damaged").iterdir()
    assert (aside / "file").read_text() == "y"
    make(store, key)
    assert store.find("grade", key)


def holder(folder: Path) -> subprocess.Popen:
    script = (
        f"import time; from workflows.store import lock\n"
        f"with lock({str(folder)!r}):\n    print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=ROOT)
    assert process.stdout.readline() == b"held\n"
    return process


def test_a_second_driver_is_told_of_the_first_and_death_frees_the_folder(tmp_path):
    first = holder(tmp_path)
    with pytest.raises(
        MeritError, match=rf"in use by another run: process {first.pid} on {os.uname().nodename} since 20"
    ):
        with lock(tmp_path):
            pass
    first.send_signal(signal.SIGKILL)
    first.wait()
    first.stdout.close()
    with lock(tmp_path):
        pass


def test_a_folder_can_be_locked_again_after_its_run_and_beside_another(tmp_path):
    with lock(tmp_path / "a"), lock(tmp_path / "b"):
        with pytest.raises(MeritError), lock(tmp_path / "a"):
            pass
    with lock(tmp_path / "a"):
        pass
