"""Parsl answered from the store: with its real kernel and threads."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from pathlib import Path

import parsl
import pytest
from parsl import python_app

from apps import artifacts, stages
from apps.records import Artifact
from workflows import sites
from workflows.driver.memoizer import Stopped, StoreMemoizer
from workflows.store import Store

KEY = "ab" + "2" * 30


@python_app(executors=["cpu"])
def stage_app(stage: str, key: str, root: str, ran: deque, inputs=(), gate=None, fail=False) -> Artifact:
    """A stage that notes that it ran, waits for `gate` and writes. (`ran` is no list: Parsl gives those as copies.)"""
    ran.append(key)
    if gate:
        assert gate.wait(20)
    if fail:
        raise ValueError("it went wrong")
    with artifacts.new(root, stage, key, {}) as folder:
        (folder / "file").write_text("contents")
    return Artifact(stage, key, str(artifacts.locate(root, stage, key)))


@contextmanager
def kernel(tmp_path: Path, retries: int = 0) -> Iterator[StoreMemoizer]:
    memoizer = StoreMemoizer(Store(tmp_path / "store"))
    config = sites.load("local", cores=4).parsl(tmp_path / "parsl", memoizer)
    config.retries = retries
    with parsl.load(config):
        yield memoizer
    parsl.clear()


def call(tmp_path: Path, ran: deque, key: str = KEY, **more):
    return stage_app(stage="grade", key=key, root=str(tmp_path / "store"), ran=ran, **more)


def begun(ran: deque, n: int = 1) -> None:
    """Waits until `n` tasks are at work."""
    tick = threading.Event()
    for _ in range(2000):
        if len(ran) >= n:
            return
        tick.wait(0.01)
    raise AssertionError(f"{n} tasks should run, {len(ran)} do")


def test_a_second_run_is_answered_from_the_store_without_execution(tmp_path):
    ran: deque = deque()
    for _ in range(2):
        with kernel(tmp_path) as memoizer:
            first = call(tmp_path, ran)
            last = call(tmp_path, ran, key="cd" + "3" * 30, inputs=[first])
            made = [first.result(), last.result()]
    assert len(ran) == 2
    assert memoizer.counts == {("grade", "found"): 2}
    assert made[0] == Artifact("grade", KEY, str(artifacts.locate(tmp_path / "store", "grade", KEY)))


def test_what_a_task_wants_is_woken_before_it_is_handed_over_but_for_a_report(tmp_path, monkeypatch):
    tick, woken = stages.Stage("tick", "tests.survival.soak", "cpu"), []
    monkeypatch.setattr(Store, "wake", lambda self, given: woken.append([artifact.key for artifact in given]))
    root, machine = tmp_path / "store", {"threads": 1}
    with kernel(tmp_path):
        first = stages.launch(tick, "ab1", root, {"shard": 1}, machine, {})
        stages.launch(tick, "cd2", root, {"shard": 2}, machine, {"before": [first]}).result()
        monkeypatch.setattr(stages, "LATE", ("tick",))
        stages.launch(tick, "ef3", root, {"shard": 3}, machine, {"before": [first]}).result()
    assert woken == [[], ["ab1"]]


def test_identical_tasks_in_flight_are_executed_once(tmp_path):
    ran, gate = deque(), threading.Event()
    with kernel(tmp_path) as memoizer:
        first = call(tmp_path, ran, gate=gate)
        begun(ran)
        others = [call(tmp_path, ran, gate=gate) for _ in range(3)]
        other_key = call(tmp_path, ran, key="cd" + "4" * 30)
        other_key.result()  # by now Parsl has also looked at those before it
        assert not any(task.done() for task in [first, *others])
        gate.set()
        assert {task.result() for task in others} == {first.result()}
    assert list(ran) == [KEY, "cd" + "4" * 30]
    assert (memoizer.count("joined"), memoizer.count("made"), memoizer.count("failed")) == (3, 2, 0)


def test_a_failure_reaches_those_who_joined_and_is_not_remembered(tmp_path):
    ran, gate = deque(), threading.Event()
    with kernel(tmp_path) as memoizer:
        first = call(tmp_path, ran, gate=gate, fail=True)
        begun(ran)
        joined = call(tmp_path, ran, gate=gate, fail=True)
        call(tmp_path, ran, key="cd" + "5" * 30).result()
        gate.set()
        for task in (first, joined):
            with pytest.raises(ValueError, match="it went wrong"):
                task.result()
        assert ran.count(KEY) == 1
        assert call(tmp_path, ran).result().key == KEY  # tried again, in the same run
    assert memoizer.counts == {
        ("grade", "begun"): 3,
        ("grade", "joined"): 1,
        ("grade", "failed"): 1,
        ("grade", "made"): 2,
    }


def test_a_task_that_parsl_tries_again_does_not_wait_for_itself(tmp_path):
    ran: deque = deque()
    with kernel(tmp_path, retries=2), pytest.raises(ValueError, match="it went wrong"):
        call(tmp_path, ran, fail=True).result(timeout=20)
    assert len(ran) == 3


@pytest.mark.parametrize(
    "damage",
    [
        lambda p: os.truncate(p / "file", 3),
        lambda p: (p / "file").write_text("contentz"),
        lambda p: (p / "file").unlink(),
        lambda p: (p / "manifest.json").unlink(),
    ],
)
def test_a_damaged_artifact_is_made_again(tmp_path, damage):
    ran: deque = deque()
    with kernel(tmp_path):
        path = Path(call(tmp_path, ran).result().path)
    damage(path)
    with kernel(tmp_path) as memoizer:
        call(tmp_path, ran).result()
    assert list(ran) == [KEY, KEY]
    assert memoizer.counts == {("grade", "begun"): 1, ("grade", "made"): 1}
    assert (path / "file").read_text() == "contents" and artifacts.check(path) is None


def test_a_task_without_a_key_always_runs(tmp_path):
    ran: deque = deque()

    @python_app(executors=["network"])
    def plain(n: int, ran: deque) -> int:
        ran.append(n)
        return n

    with kernel(tmp_path) as memoizer:
        assert [plain(7, ran).result() for _ in range(2)] == [7, 7]
    assert list(ran) == [7, 7] and not memoizer.counts


def test_the_listener_hears_every_event_in_order(tmp_path):
    heard: list = []
    memoizer = StoreMemoizer(Store(tmp_path / "store"), lambda *event: heard.append(event))
    with sites.running(sites.load("local", cores=2), tmp_path / "parsl", memoizer):
        for _ in range(2):
            call(tmp_path, deque()).result()
    assert heard == [("grade", KEY, "begun"), ("grade", KEY, "made"), ("grade", KEY, "found")]


def test_nothing_is_begun_once_the_run_stops(tmp_path):
    """Ctrl-C with one task at work, one that waits for it and many in the queue: only the first one ends."""
    ran, gate, tasks = deque(), threading.Event(), []
    memoizer = StoreMemoizer(Store(tmp_path / "store"))
    with pytest.raises(KeyboardInterrupt):
        with sites.running(sites.load("local", cores=1), tmp_path / "parsl", memoizer):
            tasks.append(call(tmp_path, ran, gate=gate))
            begun(ran)
            tasks += [call(tmp_path, ran, key=f"{n:032x}") for n in range(20)]
            tasks.append(call(tmp_path, ran, key="ef" + "6" * 30, inputs=[tasks[0]]))
            tasks.append(call(tmp_path, ran))  # joined to the first
            threading.Thread(target=lambda: wait(tasks[1:-2]) and gate.set()).start()  # once the queue is given up
            raise KeyboardInterrupt
    assert list(ran) == [KEY]
    assert tasks[0].result().key == KEY
    assert memoizer.count("failed") == 0  # what was given up is no fault
    assert all(task.exception(timeout=20) is not None for task in tasks[1:-1])


def test_whoever_waits_before_it_is_begun_is_joined_by_the_same_task_and_not_by_its_side(tmp_path):
    """Else both would be given what they wait for, such as nodes, and one would keep it from the other."""
    memoizer, asked = StoreMemoizer(Store(tmp_path / "store")), []
    memoizer.before = lambda task: asked.append(task["id"]) or (Future() if len(asked) == 1 else None)
    first, second = ({"id": n, "kwargs": {"stage": "train", "key": KEY}, "from_memo": False} for n in (1, 2))
    assert not memoizer.check_memo(first).done() and not (joined := memoizer.check_memo(second)).done()
    assert not memoizer.count("begun") and memoizer.check_memo(first) is None and asked == [1, 1]
    memoizer.update_memo_result(first, "made")
    assert joined.result(0) == "made"
    assert memoizer.counts == {("train", "joined"): 1, ("train", "begun"): 1, ("train", "made"): 1}


def test_it_tells_of_every_task_that_is_over_also_of_one_that_was_never_launched(tmp_path):
    over: list[str] = []
    with kernel(tmp_path) as memoizer:
        memoizer.after = lambda task: over.append(task["kwargs"]["key"])
        first = call(tmp_path, deque(), fail=True)
        second = call(tmp_path, deque(), key="ef" + "6" * 30, inputs=[first])
        call(tmp_path, deque(), key="cd" + "7" * 30).result()
        assert second.exception(20)
    assert sorted(over) == [KEY, "cd" + "7" * 30, "ef" + "6" * 30]


def test_a_closed_memoizer_refuses(tmp_path):
    memoizer = StoreMemoizer(Store(tmp_path / "store"))
    memoizer.close()
    refused = memoizer.check_memo({"id": 1, "kwargs": {"stage": "grade", "key": KEY}})
    with pytest.raises(Stopped):
        refused.result()
