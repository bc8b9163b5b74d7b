"""What real workers meet with under Parsl's real interchange: tasks go on elsewhere, faults of the task itself fail at once.

One cluster of two managers serves all tests, so their order is that of growing damage.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from apps import artifacts
from apps.platform.deadline import TooLate
from apps.records import MeritError
from tests.platform.test_processes import gone
from tests.survival import trouble
from tests.survival.cluster import PATIENCE_S, Cluster, at_work, facts, value
from workflows.driver import retries

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retries, "FIRST_S", 0.2)
        with at_work(tmp_path_factory.mktemp("htex"), managers=2, workers=1, heartbeat_s=1) as found:
            yield found


@pytest.fixture
def cluster(running: Cluster, tmp_path: Path) -> Cluster:
    return running.of_test(tmp_path)


def test_a_process_that_is_killed_in_the_middle_is_started_again(cluster):
    assert value(cluster.launch(5, "die")) == 5
    assert cluster.attempts(5) == 2
    assert "was killed by SIGKILL; perhaps the machine ran out of memory (on " in cluster.said.getvalue()
    assert "tried again in 0.2 s (1 of 2)" in cluster.said.getvalue()


def test_a_task_that_kills_its_process_each_time_fails_with_the_reason(cluster):
    task = cluster.launch(6, "die", "die-2", "die-3", "die-4")
    with pytest.raises(MeritError, match=r"failed 3 times, and is not tried again: .* SIGKILL; .*\(3 times\)"):
        task.result(PATIENCE_S)
    assert cluster.attempts(6) == 3 and (cluster.folder / "die-4").exists()


def test_a_fault_of_the_task_itself_fails_at_once_with_its_own_words(cluster):
    with pytest.raises(MeritError, match="^the rows are of another tokenizer$"):
        cluster.launch(7, "refuse").result(PATIENCE_S)
    assert cluster.attempts(7) == 1
    assert "tried again" not in cluster.said.getvalue()


def test_a_task_that_ends_its_process_by_itself_is_at_fault(cluster):
    with pytest.raises(RuntimeError, match=r"^the task ended its own process: SystemExit\(3\)$"):
        cluster.launch(16, "leave", "leave-2").result(PATIENCE_S)
    assert cluster.attempts(16) == 1


def ends_in(seconds: float, usual_s: float) -> dict[str, float]:
    """What a task is told of a batch job that ends so soon, and of how long its like have taken."""
    return {"until": time.time() + seconds, "usual_s": usual_s, "margin_s": 0.0, "most_s": 1000.0}


def test_a_worker_begins_no_task_that_the_end_of_the_job_would_cut_off(cluster):
    with pytest.raises(TooLate, match="^the job ends before this task of effort would$"):
        cluster.launch(17, machine=ends_in(600, usual_s=700)).result(PATIENCE_S)
    assert cluster.attempts(17) == 0 and "tried again" not in cluster.said.getvalue()
    assert value(cluster.launch(18, machine=ends_in(600, usual_s=500))) == 18


def test_a_task_that_the_end_of_the_job_meets_is_ended_and_not_tried_again(cluster):
    with pytest.raises(TooLate, match="^the job's time was up before this task of effort was done$"):
        cluster.launch(19, "hang", machine=ends_in(8, usual_s=0)).result(PATIENCE_S)
    assert gone([int(word) for word in (cluster.folder / "hung").read_text().split()])
    assert "tried again" not in cluster.said.getvalue()


def test_a_task_that_hangs_is_killed_with_all_that_it_started(cluster):
    assert value(cluster.launch(8, "hang", machine={"timeout_s": 4})) == 8
    assert gone([int(word) for word in (cluster.folder / "hung").read_text().split()])
    assert "took longer than 4 s and was killed (on " in cluster.said.getvalue()


def test_too_little_memory_is_met_with_smaller_batches_and_told(cluster):
    task = cluster.launch(9, "fill", engine={"name": "transformers", "rows": 256})
    assert facts(task)["smaller"] == {"engine.rows": 32, "because": "Unable to allocate 7 TiB"}
    assert cluster.attempts(9) == 4 and facts(task)["rows"] == 32
    assert "memory did not suffice, done with engine.rows=32 (Unable to allocate 7 TiB)" in cluster.said.getvalue()


def test_who_is_killed_twice_has_smaller_batches_the_third_time(cluster):
    task = cluster.launch(10, "die", "die-2", engine={"name": "transformers", "rows": 256})
    assert facts(task)["rows"] == 128 and facts(task)["smaller"]["engine.rows"] == 128


DAMAGES = {
    "vanished": lambda file: (file.unlink(), file.with_name("manifest.json").unlink(), file.with_name("facts.json").unlink()),
    "truncated": lambda file: os.truncate(file, 0),
    "flipped": lambda file: file.write_text("99"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_input_that_is_damaged_while_the_run_goes_on_is_made_again(cluster, damage):
    first = cluster.launch(11)
    DAMAGES[damage](Path(first.result(PATIENCE_S).path) / "sum.txt")
    assert value(cluster.launch(1, needs=[first])) == 12
    assert cluster.attempts(11) == 2
    assert f"an input cannot be used: effort {first.result().key}" in cluster.said.getvalue()
    assert artifacts.check(first.result().path, anew=True) is None


def test_ranks_of_which_one_is_killed_are_started_again(cluster):
    assert facts(cluster.launch(15, "die", stage=trouble.RANKS))["sum"] == 6
    assert "tried again in 0.2 s (1 of 2)" in cluster.said.getvalue()


def test_a_worker_that_is_killed_in_the_middle_is_replaced(cluster):
    task = cluster.launch(12, "wait")
    own, worker, _ = cluster.waiting()
    os.kill(worker, signal.SIGKILL)
    assert value(task) == 12 and gone([own, worker])
    assert "loss of worker" in cluster.said.getvalue()


def test_a_manager_that_stops_answering_is_left_and_another_goes_on(cluster):
    task = cluster.launch(13, "wait")
    _, _, manager = cluster.waiting()
    os.kill(manager, signal.SIGSTOP)
    try:
        assert value(task) == 13
    finally:
        os.kill(manager, signal.SIGKILL)
    assert "loss of manager" in cluster.said.getvalue()


def test_a_manager_that_is_killed_is_replaced(cluster):
    task = cluster.launch(14, "wait")
    own, worker, manager = cluster.waiting()
    os.kill(manager, signal.SIGKILL)
    assert value(task) == 14 and gone([own, worker, manager])
    assert "loss of manager" in cluster.said.getvalue()
    assert [value(task) for task in [cluster.launch(n, seconds=0.2) for n in range(20, 24)]] == list(range(20, 24))
