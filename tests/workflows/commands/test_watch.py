"""`status`, `tail` and `stop`: a run as it is seen from beside it, with and without a batch system."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from apps.records import MeritError
from tests import command
from tests.command import SMALL, run
from workflows import store
from workflows.cluster.batch import Job
from workflows.driver import run_folder, standing

SLOW = '''"""Grades as the family does, and takes its time for it."""
import time
from apps import records
from apps.reward import exact_number
class Options(records.Options):
    """Nothing."""
def verify(task, text, options):
    time.sleep(0.2)
    return exact_number.verify(task, text, exact_number.Options())
def check_gold(task, options):
    """Any answer will do."""
'''


class Known:
    """A batch system that knows these jobs."""

    def __init__(self, *jobs: Job) -> None:
        self.jobs = {job.id: job for job in jobs}

    def status(self, id: str) -> Job | None:
        return self.jobs.get(id)


def folder_of_a_run(folder: Path, state: str, *jobs: str, job: str = "") -> Path:
    folder.mkdir(parents=True)
    run_folder.write(folder / run_folder.SUMMARY, json.dumps({"state": state}))
    run_folder.write(folder / "environment.json", json.dumps({"site": "local", "job": job}))
    for each in jobs:
        run_folder.note_job(folder, each, "began")
    return folder


def driven_from(folder: Path, host: str) -> None:
    (folder / ".lock").write_text(json.dumps({"pid": 77, "host": host, "since": "just now"}))


def test_a_run_whose_driver_is_gone_was_killed(tmp_path):
    """On this host by its lock; in a job by that job, wherever it was."""
    here, there = folder_of_a_run(tmp_path / "a", "running"), folder_of_a_run(tmp_path / "b", "running", "1", job="1")
    driven_from(here, os.uname().nodename)  # whoever wrote that let go without a word
    assert standing.of(here, None).state == "killed"
    driven_from(there, "x9")
    assert standing.of(there, None).state == "running"  # nobody who could tell
    assert standing.of(there, Known(Job("1", "n", "running", "q"))).state == "running"
    assert standing.of(there, Known(Job("1", "n", "finished", "q"))).state == "killed"
    assert standing.of(there, Known()).state == "killed"  # PBS has forgotten it


def test_a_run_that_a_driver_has_is_told_with_its_driver(tmp_path):
    folder = folder_of_a_run(tmp_path / "a", "running")
    with store.lock(folder):
        assert store.holder(folder)["pid"] == os.getpid()
        found = standing.of(folder, None)
    assert found.state == "running" and found.driver["pid"] == os.getpid()
    assert standing.of(folder, None).state == "killed" and store.holder(folder) is None


def test_jobs_are_told_in_their_order_with_what_is_left(tmp_path):
    folder = folder_of_a_run(tmp_path / "a", "goes on in job 2", "1", "2", "1")
    jobs = Job("1", "n", "finished", "q", status=75), Job("2", "n", "running", "q", time.time() - 60, 3660, output="/o")
    rows = standing.told(standing.of(folder, Known(*jobs)))
    assert ("run", "a: goes on in job 2") in rows and ("its output", "/o") in rows
    first, second = (text for what, text in rows if what == "job")
    assert first == "1: finished in q, exit status 75"
    assert re.fullmatch(r"2: running in q, (0:59|1:00) of 1.0 h left", second)


def test_a_run_that_is_not_there_is_answered_with_those_that_are(tmp_path):
    folder_of_a_run(tmp_path / "mine", "finished")
    with pytest.raises(MeritError, match=r"there is no 'mien'; did you mean 'mine'\?"):
        standing.folder_of(tmp_path, "mien")


@pytest.fixture
def running(tmp_path):
    """A run that takes half a minute, in a folder of its own."""
    (tmp_path / "slow.py").write_text(SLOW)
    driver = command.start(tmp_path, *SMALL, "name=slow", "verifier.name=slow.py")
    log = tmp_path / "runs" / "slow" / "log.txt"
    end = time.monotonic() + 120
    while not (log.is_file() and "rollout" in log.read_text()):
        assert driver.poll() is None and time.monotonic() < end
        time.sleep(0.05)
    yield driver
    driver.kill()
    driver.wait()


@pytest.mark.slow
def test_a_run_on_this_machine_is_told_of_followed_and_stopped(tmp_path, running):
    told = run(tmp_path, "status", "slow").stdout
    assert re.search(rf"^run +slow: running\n(.*\n)*driver +process {running.pid} on ", told, re.M)
    assert f"{tmp_path}/runs/slow/log.txt" in told
    follower = subprocess.Popen(
        [sys.executable, str(command.ROOT / "workflows" / "run.py"), "tail", "slow", "-n", "1"],
        cwd=tmp_path, env=command.ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    time.sleep(1)
    stopped = run(tmp_path, "stop", "slow")
    assert stopped.returncode == 0 and "slow is stopped" in stopped.stdout, stopped.stderr
    assert running.wait(60) == 143
    assert json.loads((tmp_path / "runs" / "slow" / "summary.json").read_text())["state"] == "stopped"
    followed, _ = follower.communicate(timeout=60)
    assert re.search("^[\\d:]+ stopped$", followed, re.M) and followed.splitlines()[-1] == "slow: stopped"
    assert "there is nothing to stop" in run(tmp_path, "stop", "slow").stdout


def test_a_driver_on_another_host_without_a_job_cannot_be_stopped_from_here(tmp_path):
    driven_from(folder_of_a_run(tmp_path / "runs" / "far", "running"), "x9")
    told = run(tmp_path, "stop", "far")
    assert told.returncode == 2 and "process 77 on x9, and no batch job of it is known here" in told.stderr


def test_a_killed_run_is_called_so(tmp_path):
    folder = folder_of_a_run(tmp_path / "runs" / "slow", "running")
    with subprocess.Popen([sys.executable, "-c", f"import sys, time; sys.path.insert(0, {str(command.ROOT)!r})\n"
                           f"from workflows import store\nwith store.lock({str(folder)!r}):\n print('has it', flush=True); time.sleep(60)"],
                          stdout=subprocess.PIPE, text=True) as driver:  # fmt: skip
        driver.stdout.readline()
        assert standing.of(folder, None).state == "running"
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    assert re.search(r"^run +slow: killed$", run(tmp_path, "status", "slow").stdout, re.M)
    assert "slow: killed; there is nothing to stop" in run(tmp_path, "stop", "slow").stdout
