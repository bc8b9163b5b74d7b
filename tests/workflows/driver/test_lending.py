"""Training tasks wait for nodes and are told them; Parsl and its managers are stand-ins. With real ones: tests/site/test_aurora_runs.py."""

from __future__ import annotations

import json
from concurrent.futures import Future
from pathlib import Path

import pytest

from apps import stages
from apps.platform import mpi
from tests.checkout import wait_for
from workflows.cluster.roles import Shares
from workflows.driver import lending


class Executor:
    """Of inference, whose managers the test makes."""

    label, manager_selector, max_workers_per_node = "inference", None, 2

    def __init__(self, **tasks: int) -> None:
        self.tasks = tasks

    def connected_managers(self) -> list[dict]:
        return [{"manager": f"{host}-0a1b", "tasks": n, "active": True} for host, n in self.tasks.items()]


class Job:
    """x1 trains; x2, x3 and x4 play, and may train too; two nodes a task."""

    def __init__(self, folder: Path, made: set[str]) -> None:
        self.folder, self.said, self.executor = folder, [], Executor(x2=1, x3=1, x4=1)
        shares = Shares(("x1.hsn",), ("x2.hsn", "x3.hsn", "x4.hsn"), 2, lends=True)
        self.lending = lending.Lending(
            shares, folder, lambda host: False, lambda stage, key: key in made, self.said.append
        )
        self.lending.govern([self.executor], [])

    def task(self, number: int, ranks: int = 12) -> dict:
        rest = stages.Sealed({"options": {"training": {"ranks": ranks}}, "machine": {}})
        task = {"id": number, "app_fu": Future(), "kwargs": {"stage": "train", "key": f"k{number}", "rest": rest}}
        self.lending.first_seen(task)
        return task

    def granted(self, task: dict) -> list[str]:
        """The nodes that a task is told, once they are there."""
        with pytest.raises(lending.Granted):
            self.lending.before(task).result(10)
        assert self.lending.before(task) is None
        return Path(task["kwargs"]["rest"].arguments["machine"]["hostfile"]).read_text().split()

    def lent(self) -> list[str]:
        return json.loads((self.folder / "inference.lent.json").read_text())


@pytest.fixture
def job(tmp_path, monkeypatch):
    monkeypatch.setattr(lending, "POLL_S", 0.02)
    monkeypatch.setattr(lending, "LOST_S", 0.1)
    job = Job(tmp_path, {"k9"})
    yield job
    job.lending.close()


def test_a_task_waits_until_a_node_has_ended_what_it_played_and_gives_it_back(job):
    task = job.task(1)
    waits = job.lending.before(task)
    assert wait_for(lambda: job.said, 10) and job.said == ["1 node lent to training: x2"] and job.lent() == ["x2.hsn"]
    assert not waits.done()
    job.executor.tasks["x2"] = 0
    with pytest.raises(lending.Granted):
        waits.result(10)
    assert job.lending.before(task) is None
    told = task["kwargs"]["rest"].arguments["machine"]["hostfile"]
    assert Path(told).read_text().split() == ["x1.hsn", "x2.hsn"]
    task["app_fu"].set_result(None)
    assert wait_for(lambda: job.lent() == [], 10) and job.said[-1] == "1 node back: x2"


def test_what_starts_no_ranks_or_is_made_already_waits_for_nothing(job):
    assert job.lending.before(job.task(1, ranks=1)) is None
    assert job.lending.before(job.task(9)) is None
    other = job.task(2)
    other["kwargs"]["stage"] = "merge"
    assert job.lending.before(other) is None


def test_a_node_that_falls_silent_ends_the_attempt_and_the_next_has_others(job):
    job.executor.tasks = {"x2": 0, "x3": 3, "x4": 4}
    task = job.task(1)
    assert job.granted(task) == ["x1.hsn", "x2.hsn"]
    gone = Path(task["kwargs"]["rest"].arguments["machine"]["hostfile"] + mpi.GONE)
    del job.executor.tasks["x2"]
    assert wait_for(gone.exists, 10) and gone.read_text() == "x2.hsn\n"
    job.executor.tasks["x3"] = 0
    assert job.granted(task) == ["x1.hsn", "x3.hsn"] and not gone.exists()


def test_one_that_ends_while_it_waits_wants_nothing_more(job):
    task = job.task(1)
    job.lending.before(task)
    assert wait_for(lambda: job.said, 10)
    task["app_fu"].set_exception(RuntimeError("the run was stopped"))
    job.executor.tasks["x2"] = 0
    assert wait_for(lambda: job.lent() == [], 10)
