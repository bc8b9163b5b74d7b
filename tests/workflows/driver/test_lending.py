"""Training tasks wait for nodes and are told them; Parsl and its managers are stand-ins. With real ones: tests/site/test_aurora_runs.py."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from parsl.executors.high_throughput.manager_selector import BlockIdManagerSelector

from apps import stages
from apps.platform import mpi
from tests.checkout import wait_for
from workflows import sites
from workflows.cluster.roles import Shares
from workflows.driver import lending, lent
from workflows.driver.lent import NotLent
from workflows.driver.memoizer import StoreMemoizer
from workflows.store import Store

SITE = Path(__file__).parents[2] / "survival" / "site_htex.py"


class Executor:
    """Of inference, whose managers the test makes."""

    label, manager_selector, max_workers_per_node = "inference", None, 2

    def __init__(self, **tasks: int) -> None:
        self.tasks = tasks

    def connected_managers(self) -> list[dict]:
        if self.tasks is None:
            raise OSError("it does not answer")
        return [{"manager": f"{host}-0a1b", "tasks": n, "active": True} for host, n in self.tasks.items()]


class Job:
    """x1 trains; x2, x3 and x4 play, and may train too; two nodes a task."""

    def __init__(self, folder: Path, made: set[str], **tasks: int) -> None:
        self.folder, self.said, self.executor = folder, [], Executor(**(tasks or {"x2": 1, "x3": 1, "x4": 1}))
        shares = Shares(("x1.hsn",), ("x2.hsn", "x3.hsn", "x4.hsn"), 2, lends=True)
        self.lending = lending.Lending(
            shares, folder, lambda host: False, lambda stage, key: key in made, self.said.append
        )
        self.lending.govern([self.executor], [])
        assert not self.lending._thread.is_alive(), "executors that are not up would be asked for their managers"
        self.lending.start()

    def task(self, number: int, ranks: int = 12) -> dict:
        rest = stages.Sealed({"options": {"training": {"ranks": ranks}}, "machine": {}})
        return {"id": number, "kwargs": {"stage": "train", "key": f"k{number}", "rest": rest}}

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
    assert not job.lending._thread.is_alive()


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
    job.lending.ended(task)
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
    job.lending.ended(task)
    job.executor.tasks["x2"] = 0
    assert wait_for(lambda: job.lent() == [], 10)


def test_a_node_that_is_lost_before_it_trains_is_not_kept_from_playing_when_it_is_back(job):
    task = job.task(1)
    job.lending.before(task)
    assert wait_for(lambda: job.said, 10) and job.lent() == ["x2.hsn"]
    job.lending.ended(task)
    job.executor.tasks = {"x3": 1}
    assert wait_for(lambda: job.lent() == [], 10)


def test_nodes_that_are_not_there_yet_are_not_taken_for_lost(tmp_path, monkeypatch):
    """Else a training task would have fewer nodes than its ranks have room on, or be ended."""
    monkeypatch.setattr(lending, "POLL_S", 0.02)
    monkeypatch.setattr(lending, "LOST_S", 0.1)
    job = Job(tmp_path, set(), x2=0)
    try:
        assert job.granted(job.task(1)) == ["x1.hsn", "x2.hsn"]
        job.executor.tasks = {"x3": 1}
        gone = tmp_path / f"slot-1.hosts{mpi.GONE}"
        assert wait_for(gone.exists, 10) and gone.read_text() == "x2.hsn\n", "one that was there is missed"
    finally:
        job.lending.close()


def test_where_the_interchange_does_not_answer_no_node_is_taken_for_idle(job):
    waits = job.lending.before(job.task(1))
    assert wait_for(lambda: job.said, 10)
    job.executor.tasks = None
    time.sleep(0.2)
    assert not waits.done()


def test_whatever_goes_wrong_nobody_waits_for_ever(job, monkeypatch):
    def fails(*given):
        raise RuntimeError("dictionary changed size during iteration")

    monkeypatch.setattr(job.lending.nodes, "step", fails)
    with pytest.raises(RuntimeError, match="changed size"):
        job.lending.before(job.task(1)).result(10)
    monkeypatch.undo()
    job.executor.tasks = {"x2": 0, "x3": 0, "x4": 0}
    assert len(job.granted(job.task(2))) == 2


def test_one_that_was_given_up_while_it_waits_holds_up_nobody(job):
    task = job.task(1)
    assert job.lending.before(task).cancel()  # as a run is stopped
    job.executor.tasks = {"x2": 0, "x3": 0, "x4": 0}
    assert wait_for(lambda: job.lending.nodes.has, 10)
    job.lending.ended(task)
    assert len(job.granted(job.task(2))) == 2


def test_the_interchange_keeps_to_what_it_knew_where_the_file_cannot_be_read(tmp_path):
    ready = {b"a": {"hostname": "X1.hsn"}, b"b": {"hostname": "x2"}}
    chosen = NotLent(tmp_path / "lent", BlockIdManagerSelector())
    ready = {name: {**m, "block_id": "0"} for name, m in ready.items()}
    assert chosen.sort_managers(ready, set(ready)) and len(chosen.sort_managers(ready, set(ready))) == 2
    lent.write(tmp_path / "lent", ["x1.hsn"])
    assert chosen.sort_managers(ready, set(ready)) == [b"b"]
    (tmp_path / "lent").unlink()
    assert chosen.sort_managers(ready, set(ready)) == [b"b"]
    (tmp_path / "lent").write_text("[")
    assert chosen.sort_managers(ready, set(ready)) == [b"b"]
    lent.write(tmp_path / "lent", [])
    assert len(chosen.sort_managers(ready, set(ready))) == 2


def train(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """A stage: notes its nodes."""
    (out / "hosts").write_text(Path(options["hostfile"]).read_text())
    return {}


def test_a_damaged_result_of_training_is_made_again_and_has_nodes(tmp_path):
    site = replace(sites.load("local", cores=2, device="cpu"), shares=Shares(("x1",), ("x2", "x3"), 2, lends=True))
    stage = replace(stages.TRAIN, module=__name__, own_process=False)
    for _ in range(2):
        store = Store(tmp_path / "store")
        with sites.running(site, tmp_path / "parsl", StoreMemoizer(store)):
            task = stages.launch(stage, "ab" * 16, store.root, {"training": {"ranks": 24}}, {}, {})
            hosts = Path(task.result(30).path) / "hosts"
        assert hosts.read_text() == "x1\nx2\n"
        hosts.write_text("x7\nx8\n")


def test_nothing_is_left_of_a_run_whose_parsl_does_not_come_up(tmp_path, monkeypatch):
    def fails(config):
        raise OSError("Interchange failed to start")

    monkeypatch.setattr("parsl.load", fails)
    site = replace(sites.load(str(SITE)), shares=Shares(("x1",), ("x2", "x3"), 2, lends=True))
    with pytest.raises(OSError, match="failed to start"):
        with sites.running(site, tmp_path, StoreMemoizer(Store(tmp_path / "store"))):
            pass
    left = {"lending", "anchor", "overdue"}
    assert wait_for(lambda: not left & {thread.name for thread in threading.enumerate()}, 10)
