"""An artifact is whole under its final name or not there; every damage to it is found."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps import artifacts
from apps.records import MeritError

KEY = "ab" + "0" * 30


def write(root: Path, text: str = "hello", key: str = KEY) -> Path:
    with artifacts.new(root, "grade", key, {"options": {"a": 1}}) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "one.txt").write_text(text)
        (folder / "two.bin").write_bytes(bytes(range(256)))
    return artifacts.locate(root, "grade", key)


def left_behind(root: Path) -> list[str]:
    return os.listdir(root / "tmp")


def test_a_finished_artifact_lies_under_its_key_and_says_what_it_is_made_from(tmp_path):
    path = write(tmp_path)
    assert path == tmp_path / "grade" / "ab" / KEY
    told = artifacts.manifest(path)
    assert (told["stage"], told["key"], told["record"]) == ("grade", KEY, {"options": {"a": 1}})
    assert told["files"]["sub/one.txt"] == {
        "bytes": 5,
        "sha256": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",  # of "hello"
    }
    assert set(told["files"]) == {"sub/one.txt", "two.bin"}
    assert artifacts.check(path) is None
    assert left_behind(tmp_path) == []


def test_an_exception_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="no luck"), artifacts.new(tmp_path, "grade", KEY, {}) as folder:
        (folder / "half").write_text("half")
        raise ValueError("no luck")
    assert not artifacts.locate(tmp_path, "grade", KEY).exists()
    assert left_behind(tmp_path) == []


def test_of_two_writers_the_first_one_wins(tmp_path):
    both = threading.Barrier(2)

    def second() -> None:
        with artifacts.new(tmp_path, "grade", KEY, {}) as folder:
            (folder / "who").write_text("second")
            both.wait()  # both have begun …
            both.wait()  # … and the first has ended

    thread = threading.Thread(target=second)
    thread.start()
    with artifacts.new(tmp_path, "grade", KEY, {}) as folder:
        (folder / "who").write_text("first")
        both.wait()
    both.wait()
    thread.join()
    path = artifacts.locate(tmp_path, "grade", KEY)
    assert (path / "who").read_text() == "first"
    assert artifacts.check(path) is None
    assert left_behind(tmp_path) == []


def test_a_damaged_artifact_in_the_way_gives_place_to_a_whole_one(tmp_path):
    path = write(tmp_path)
    (path / "two.bin").unlink()
    write(tmp_path)
    assert artifacts.check(path) is None
    assert len(os.listdir(tmp_path / "damaged")) == 1


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda p: os.truncate(p / "two.bin", 255), "two.bin has 255 bytes, not 256"),
        (lambda p: (p / "sub" / "one.txt").unlink(), "sub/one.txt is missing"),
        (lambda p: (p / "sub" / "one.txt").write_text("hellp"), "sub/one.txt has other contents"),
        (lambda p: (p / "manifest.json").unlink(), "manifest.json cannot be read"),
        (lambda p: os.truncate(p / "manifest.json", 40), "manifest.json cannot be read"),
        (lambda p: (p / "manifest.json").write_text("[]"), "manifest.json cannot be read"),
    ],
)
def test_damage_is_named(tmp_path, damage, reason):
    path = write(tmp_path)
    damage(path)
    assert artifacts.check(path).startswith(reason)


@settings(deadline=None, max_examples=60)
@given(position=st.integers(0, 10**6), bit=st.integers(0, 7), name=st.sampled_from(["two.bin", "manifest.json"]))
def test_any_flipped_bit_is_found(tmp_path_factory, position, bit, name):
    path = write(tmp_path_factory.mktemp("store"))
    data = bytearray((path / name).read_bytes())
    data[position % len(data)] ^= 1 << bit
    before = artifacts.manifest(path)
    (path / name).write_bytes(data)
    reason = artifacts.check(path)
    if reason is None:  # only white space of the manifest may change
        assert name == "manifest.json" and artifacts.manifest(path) == before


def test_contents_are_read_once_and_sizes_looked_at_every_time(tmp_path):
    path = write(tmp_path)
    assert artifacts.check(path) is None
    (path / "sub" / "one.txt").write_text("hellp")
    assert artifacts.check(path) is None  # the same size: not read a second time in this process
    (path / "sub" / "one.txt").write_text("hell")
    assert artifacts.check(path) == "sub/one.txt has 4 bytes, not 5"


def test_a_full_disk_is_said_in_one_message_and_leaves_nothing(tmp_path):
    with pytest.raises(MeritError, match=f"disk is full: grade .*{tmp_path}.* MB free"):
        with artifacts.new(tmp_path, "grade", KEY, {}) as folder:
            (folder / "half").write_text("half")
            with open("/dev/full", "wb", buffering=0) as full:
                full.write(b"x")  # a real ENOSPC
    assert left_behind(tmp_path) == []


def test_a_full_disk_is_recognised_without_an_errno(tmp_path):
    with pytest.raises(MeritError, match="disk is full"), artifacts.new(tmp_path, "grade", KEY, {}):
        raise RuntimeError("I/O error: No space left on device (os error 28)")  # as safetensors words it


def test_a_writer_that_is_killed_leaves_nothing_that_is_taken_for_whole(tmp_path):
    script = (
        "import sys, time; from apps import artifacts\n"
        f"with artifacts.new({str(tmp_path)!r}, 'grade', {KEY!r}, {{}}) as folder:\n"
        "    (folder / 'half').write_text('half'); print('begun', flush=True); time.sleep(60)"
    )
    writer = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=Path(__file__).parents[1])
    assert writer.stdout.readline() == b"begun\n"
    assert artifacts.sweep(tmp_path) == 0  # it lives: its draft stays
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    assert not artifacts.locate(tmp_path, "grade", KEY).exists()
    assert len(left_behind(tmp_path)) == 1
    assert artifacts.sweep(tmp_path) == 1
    assert left_behind(tmp_path) == []


def test_the_manifest_tells_the_seconds_it_took(tmp_path):
    with artifacts.new(tmp_path, "grade", KEY, {}):
        time.sleep(0.05)
    assert artifacts.manifest(artifacts.locate(tmp_path, "grade", KEY))["seconds"] >= 0.05
