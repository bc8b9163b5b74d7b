"""Tasks that are tried again under Parsl's real kernel, on threads; on real managers: tests/survival/."""

from __future__ import annotations

import threading
import time
from concurrent.futures import wait
from dataclasses import replace
from pathlib import Path

import pytest

from apps import stages
from apps.records import MeritError
from tests.survival import trouble
from workflows import sites
from workflows.driver import retries
from workflows.driver.alarm import Alarm
from workflows.driver.memoizer import Stopped, StoreMemoizer
from workflows.store import Store


def launch(folder: Path, number: int, *troubles: str, needs=()):
    for name in troubles:
        (folder / name).touch()
    options = {"number": number, "folder": str(folder), "troubles": troubles}
    return stages.launch(trouble.EFFORT, f"{number:032x}", folder / "store", options, {}, {"needs": list(needs)})


@pytest.fixture
def at_work(tmp_path, monkeypatch):
    """(what the log says, the memoizer): a site whose tasks are tried again twice."""
    monkeypatch.setattr(retries, "FIRST_S", 0.1)
    said: list[str] = []
    memoizer = StoreMemoizer(Store(tmp_path / "store"))
    site = replace(sites.load("local", cores=2, device="cpu"), retries=2)
    with sites.running(site, tmp_path / "parsl", memoizer, said.append):
        yield said, memoizer


def test_a_fault_of_the_machine_is_tried_again_after_a_while_and_counted_once(tmp_path, at_work):
    said, memoizer = at_work
    task = launch(tmp_path, 4, "stale", "stale-2")
    assert (Path(task.result(30).path) / "sum.txt").read_text() == "4"
    assert [line.partition("; ")[2] for line in said] == [
        "tried again in 0.1 s (1 of 2)",
        "tried again in 0.2 s (2 of 2)",
    ]
    assert said[0].startswith("effort 00000000: [Errno 116] Stale file handle (on ")
    assert memoizer.counts == {("effort", "begun"): 1, ("effort", "made"): 1}


def test_one_that_never_goes_well_fails_with_all_that_was_said_and_so_do_those_that_joined(tmp_path, at_work):
    said, memoizer = at_work
    tasks = [launch(tmp_path, 5, "stale", "stale-2", "stale-3", "stale-4") for _ in range(3)]
    for task in tasks:
        with pytest.raises(retries.GaveUp, match=r"failed 3 times, and is not tried again: .*Stale file.* \(3 times\)"):
            task.result(30)
    assert len(trouble.attempts(tmp_path, 5)) == 3 and len(said) == 2
    assert memoizer.count("failed") == 1


def test_a_fault_of_the_task_is_not_tried_again(tmp_path, at_work):
    with pytest.raises(MeritError, match="another tokenizer"):
        launch(tmp_path, 6, "refuse").result(30)
    assert len(trouble.attempts(tmp_path, 6)) == 1 and not at_work[0]


def test_an_input_that_loses_itself_again_and_again_ends_too(tmp_path, at_work):
    first = launch(tmp_path, 7)
    first.result(30)
    with pytest.raises(retries.GaveUp, match="an input cannot be used: effort 0000.*; run again to have it made again"):
        launch(tmp_path, 8, *(f"lose-{n}" for n in range(9)), needs=[first]).result(30)
    assert len(trouble.attempts(tmp_path, 8)) == retries.REMADE + 1


def test_inputs_of_inputs_are_made_again_too(tmp_path, at_work):
    first = launch(tmp_path, 9)
    second = launch(tmp_path, 10, needs=[first])
    second.result(30)
    for task in (first, second):
        (Path(task.result().path) / "sum.txt").unlink()
    assert (Path(launch(tmp_path, 11, needs=[second]).result(30).path) / "sum.txt").read_text() == "30"


def test_what_waits_to_be_tried_again_is_given_up_when_the_run_stops(tmp_path, monkeypatch):
    monkeypatch.setattr(retries, "FIRST_S", 60.0)
    site, waits = replace(sites.load("local", cores=1, device="cpu"), retries=2), threading.Event()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        memoizer = StoreMemoizer(Store(tmp_path / "store"))
        with sites.running(site, tmp_path / "parsl", memoizer, lambda text: waits.set()):
            task = launch(tmp_path, 12, "stale")
            assert waits.wait(30)
            raise KeyboardInterrupt
    wait([task], 30)
    assert task.exception() is not None and time.monotonic() - began < 30


def test_an_alarm_rings_in_order_and_at_once_when_it_is_closed():
    alarm, rung = Alarm(), []
    for seconds, name in ((0.2, "last"), (0.05, "first"), (60, "never")):
        alarm.after(seconds, Stopped(name)).add_done_callback(lambda f: rung.append(str(f.exception())))
    time.sleep(0.5)
    assert rung == ["first", "last"]
    alarm.close()
    assert alarm.after(60, Stopped("closed")).exception(5).args == ("closed",)
    time.sleep(0.1)
    assert rung == ["first", "last", "never"]
