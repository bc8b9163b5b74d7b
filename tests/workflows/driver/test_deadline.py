"""What becomes of a run whose batch job ends: what is still begun, who goes on, and what is said. The clock is the test's."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import re
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from apps.platform import deadline as of_tasks
from apps.platform import faults, processes
from apps.records import MeritError
from tests.command import SMALL
from workflows import run, sites, store
from workflows.driver import deadline, live

SITE = '''"""The local site in a batch job that ends an hour after it began, with a successor by name."""
import dataclasses, time
from pathlib import Path
from apps import records
from workflows import sites
class Options(records.Options):
    """Nothing."""
def submitted():
    with open(Path(__file__).with_name("submitted"), "a") as file:
        file.write("x")
    return "12.test"
def site(options):
    local = sites.load("local", cores=1, device="cpu")
    return dataclasses.replace(local, deadline=time.time() + 3600, successor=submitted)
'''


@pytest.fixture
def clock(monkeypatch):
    """Of tasks; `clock.ahead` may be a function that says by how many seconds it is ahead, `clock.last` are the timers."""
    found = SimpleNamespace(ahead=lambda: 0.0, last=[])

    def timer(seconds, function, arguments):
        found.last.append((seconds, function, arguments))
        return SimpleNamespace(start=lambda: None)

    monkeypatch.setattr(live, "threading", SimpleNamespace(Timer=timer, Thread=threading.Thread))
    monkeypatch.setattr(of_tasks, "time", SimpleNamespace(time=lambda: time.time() + found.ahead()))
    monkeypatch.setattr(of_tasks, "_longest", {})
    return found


@pytest.mark.parametrize(
    ("machine", "begun"),
    [
        ({}, True),  # no job: no end
        ({"until": 100, "usual_s": 99, "margin_s": 1}, True),
        ({"until": 100, "usual_s": 101, "margin_s": 1}, False),
        ({"until": 100, "usual_s": None, "margin_s": 99}, True),  # nobody has seen such a task
        ({"until": 100, "usual_s": None, "margin_s": 101}, False),
        ({"until": 100, "usual_s": 500, "margin_s": 1, "partial": "/saved"}, True),  # it saves its work as it goes
        ({"until": -1, "usual_s": 0, "margin_s": 0, "partial": "/saved"}, False),
        ({"until": 100, "usual_s": 500, "margin_s": 1, "most_s": 99}, True),  # a new job would have no more time for it
        ({"until": 100, "usual_s": 500, "margin_s": 1, "most_s": 101}, False),
    ],
)
def test_a_task_is_begun_if_there_is_time_for_it(clock, machine, begun):
    if "until" in machine:
        machine = {"most_s": 1000, **machine, "until": time.time() + machine["until"]}
    done = []
    try:
        with of_tasks.within("rollout", machine):
            done.append(1)
    except of_tasks.TooLate as late:
        assert "before this task of rollout would" in str(late)
    assert bool(done) == begun


def test_what_this_process_has_seen_counts_more_than_what_was_said(clock):
    machine = {"until": time.time() + 100, "usual_s": 1, "margin_s": 0, "most_s": 1000}
    with of_tasks.within("rollout", machine):
        clock.ahead = lambda: 60.0
    with pytest.raises(of_tasks.TooLate):
        of_tasks.within("rollout", machine).__enter__()
    with of_tasks.within("grade", machine):  # another stage
        pass


def test_a_fault_is_one_until_the_time_is_up(clock):
    machine = {"until": time.time() + 100, "usual_s": 1, "margin_s": 0, "most_s": 1000}
    with pytest.raises(ValueError), of_tasks.within("train", machine):
        raise ValueError("wrong")
    with pytest.raises(of_tasks.TooLate, match="was up before this task of train"), of_tasks.within("train", machine):
        clock.ahead = lambda: 200.0
        raise ValueError("ended by the end of the job")


def test_a_process_is_told_to_end_when_the_time_is_up():
    """One that has no say in it ends at once."""
    began = time.monotonic()
    with pytest.raises(processes.WorkerDied, match="SIGTERM"):
        processes.run("tried", time.sleep, 120, until=time.time() + 0.5, grace_s=60)
    assert time.monotonic() - began < 60


def test_a_sites_own_word_comes_before_that_of_pbs(monkeypatch):
    monkeypatch.setattr(
        deadline.pbs, "around", lambda environment: {"batch": "PBS", "deadline": 5.0, "successor": None}
    )
    local = sites.load("local", cores=1, device="cpu")
    assert deadline.in_job(local, {}).deadline == 5.0
    assert deadline.in_job(dataclasses.replace(local, deadline=7.0), {}).deadline == 7.0
    ours = deadline.in_job(dataclasses.replace(local, successor=len), {})
    assert (ours.deadline, ours.batch, ours.successor) == (5.0, "PBS", len)


def refused() -> str:
    raise MeritError("qsub refuses it: no more")


@pytest.mark.parametrize(
    ("made", "successor", "said", "state"),
    [
        (
            3,
            lambda: "7.x",
            r"the job ends in 1:[34]\d; what is finished is kept; the run goes on in job 7.x",
            "goes on in job 7.x",
        ),
        (0, lambda: "7.x", r"Nothing was finished in this job, so no successor was submitted", "out of time"),
        (3, None, r"No successor was submitted: this job is the last", "out of time"),
        (3, refused, r"could not be submitted: qsub refuses it: no more", "out of time"),
    ],
)
def test_who_goes_on(tmp_path, made, successor, said, state):
    site = dataclasses.replace(
        sites.load("local", cores=1, device="cpu"), deadline=time.time() + 100, successor=successor
    )
    ended = deadline.Deadline(site, store.Store(tmp_path), []).hand_on([], made)
    assert re.search(said, str(ended)) and ended.state == state


def test_what_training_has_saved_is_something_to_go_on_from(tmp_path):
    site = dataclasses.replace(
        sites.load("local", cores=1, device="cpu"), deadline=time.time() + 100, successor=lambda: "7.x"
    )
    ending = deadline.Deadline(site, store.Store(tmp_path), [])
    nodes = [SimpleNamespace(lineage=name) for name in ("", "one")]
    assert not ending.hand_on(nodes, 0).job
    (tmp_path / "partial" / "one" / "step-000003").mkdir(parents=True)
    assert ending.hand_on(nodes, 0).job == "7.x"


def another_day(clock: SimpleNamespace) -> None:
    """The next job: there is time again, and the process has seen nothing yet, least of all a task of two hours."""
    clock.ahead = lambda: 0.0
    of_tasks._longest.clear()


def graded(folder: Path) -> int:
    return len(list((folder / "store" / "grade").glob("*/*/manifest.json")))


def kinds(folder: Path) -> set[str]:
    return {str(f.parent.relative_to(folder)) for f in (folder / "store").glob("*/??/*/manifest.json")}


def test_a_run_out_of_time_keeps_what_is_done_has_a_successor_and_is_gone_on_with(tmp_path, monkeypatch, clock, capsys):
    """The time is up once three tasks are graded; then it is not, and the rest is made."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.py").write_text(SITE)
    command = ["--site", str(tmp_path / "config.py"), *SMALL, "name=tried"]
    clock.ahead = lambda: 7200.0 if graded(tmp_path) >= 3 else 0.0
    assert run.main(command) == 75
    told = capsys.readouterr()
    assert re.search(r"the job ends in 5\d:\d\d; what is finished is kept; the run goes on in job 12.test\n", told.out)
    assert " failed (" not in told.out and "Traceback" not in told.out + told.err
    folder = tmp_path / "runs" / "tried"
    assert json.loads((folder / "summary.json").read_text())["state"] == "goes on in job 12.test"
    assert (folder / "log.txt").read_text().count("the run goes on in job 12.test") == 1
    ((seconds, function, arguments),) = clock.last  # the driver does not wait to be killed
    assert 3300 < seconds < 3600 - live.LAST_S and function is os._exit and arguments == (75,)
    assert "12.test submitted to go on" in (folder / "jobs.txt").read_text()
    before = kinds(tmp_path)
    assert before and not any("report" in kind for kind in before)
    another_day(clock)
    assert run.main(command) == 0
    assert before < kinds(tmp_path) and (tmp_path / "submitted").read_text() == "x"  # a finished run has no successor
    assert json.loads((folder / "summary.json").read_text())["state"] == "finished"


def test_a_run_that_fails_has_no_successor(tmp_path, monkeypatch, clock):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.py").write_text(SITE)
    (tmp_path / "broken.jsonl").write_text("{no json")
    words = [SMALL[0], "tasks={name: gsm8k, path: broken.jsonl}"]
    assert run.main(["--site", str(tmp_path / "config.py"), *words]) == 1
    assert not (tmp_path / "submitted").exists()


@pytest.mark.slow
def test_a_study_out_of_time_goes_on_too(tmp_path, monkeypatch, clock, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.py").write_text(SITE)
    base = {key: yaml.safe_load(value) for key, value in (word.split("=", 1) for word in SMALL)}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump({"base": base, "grid": {"credit.name": ["uniform", "local"]}}))
    clock.ahead = lambda: 7200.0 if graded(tmp_path) >= 3 else 0.0
    command = ["--manifest", "study.yaml", "--site", str(tmp_path / "config.py")]
    assert run.main(command) == 75
    assert "the run goes on in job 12.test" in capsys.readouterr().out
    study = tmp_path / "runs" / "study"
    assert json.loads((study / "summary.json").read_text())["state"] == "goes on in job 12.test"
    assert {json.loads((study / name / "summary.json").read_text())["state"] for name in ("uniform", "local")} == {
        "stopped"
    }
    before = kinds(tmp_path)
    another_day(clock)
    assert run.main(command) == 0 and before < kinds(tmp_path)
    assert (tmp_path / "submitted").read_text() == "x"


def test_being_too_late_crosses_processes_and_is_not_tried_again():
    error = pickle.loads(pickle.dumps(of_tasks.TooLate("the job ends")))
    assert isinstance(error, of_tasks.TooLate) and str(error) == "the job ends" and faults.kind(error) == faults.OWN
