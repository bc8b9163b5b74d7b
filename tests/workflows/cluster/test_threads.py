"""The local site's executors: what waits goes in the plan's order, and cores are shared between executors."""

from __future__ import annotations

import threading
import time

import pytest

from tests.training.test_ranks import until
from workflows.cluster.threads import Cores, Threads


@pytest.fixture
def started():
    """Executors of one machine, by label; closed afterwards."""
    made: list[Threads] = []

    def start(cores: int, **labels: tuple[int, int]) -> dict[str, Threads]:
        shared = Cores(cores, {label: weight for label, (_, weight) in labels.items()})
        made.extend(Threads(label, slots, shared) for label, (slots, _) in labels.items())
        for one in made:
            one.start()
        return {one.label: one for one in made}

    yield start
    for one in made:
        one.shutdown()


class Work:
    """Tasks that note when they begin and end, and wait to be let go."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.at_work, self.most = 0, 0
        self.lock, self.go = threading.Lock(), threading.Event()

    def __call__(self, name: str) -> str:
        with self.lock:
            self.begun.append(name)
            self.at_work += 1
            self.most = max(self.most, self.at_work)
        self.go.wait(20)
        with self.lock:
            self.at_work -= 1
        return name


def put(executor, work, name, priority=None):
    return executor.submit(work, {} if priority is None else {"priority": priority}, name)


def test_what_waits_goes_in_the_plans_order_and_the_rest_as_it_came(started):
    one, work = started(1, inference=(1, 1))["inference"], Work()
    futures = [put(one, work, "first", 9)]
    assert until(lambda: work.begun == ["first"])
    futures += [put(one, work, "x"), put(one, work, "c", 3), put(one, work, "a", 1), put(one, work, "y")]
    work.go.set()
    assert [future.result(20) for future in futures] == ["first", "x", "c", "a", "y"]
    assert work.begun == ["first", "a", "c", "x", "y"]


def test_executors_share_the_cores_and_the_first_of_the_plan_gets_one(started):
    both, work = started(2, inference=(2, 1), training=(2, 1)), Work()
    for label, priority in (("training", 5), ("training", 6), ("inference", 7), ("training", 8), ("inference", 4)):
        put(both[label], work, f"{label} {priority}", priority)
        time.sleep(0.05)
    assert work.begun == ["training 5", "training 6"]
    work.go.set()
    assert until(lambda: len(work.begun) == 5)
    assert work.begun[2] == "inference 4" and work.most == 2


def test_a_wide_task_waits_for_its_cores_and_none_is_lost(started):
    both, work = started(2, inference=(2, 1), training=(1, 2)), Work()
    put(both["inference"], work, "narrow", 1)
    assert until(lambda: work.begun == ["narrow"])
    wide = put(both["training"], work, "wide", 2)
    time.sleep(0.1)
    assert work.begun == ["narrow"]
    work.go.set()
    assert wide.result(20) == "wide" and until(lambda: both["training"].cores.free == 2)


def test_an_executor_of_no_weight_asks_for_no_core(started):
    both, work = started(1, inference=(1, 1), cpu=(2, 0)), Work()
    for label in ("inference", "cpu", "cpu"):
        put(both[label], work, label, 1)
    assert until(lambda: work.at_work == 3)
    work.go.set()


def test_faults_reach_who_waits_and_what_was_cancelled_is_not_begun(started):
    one, work = started(1, cpu=(1, 0))["cpu"], Work()
    put(one, work, "first")
    assert until(lambda: work.begun == ["first"])
    fails, dropped = one.submit(int, {}, "no number"), put(one, work, "dropped")
    assert dropped.cancel()
    work.go.set()
    with pytest.raises(ValueError, match="no number"):
        fails.result(20)
    one.shutdown()
    assert work.begun == ["first"]


def test_thousands_of_tasks_of_several_executors_are_all_done(started):
    both = started(2, inference=(2, 1), training=(2, 1), cpu=(3, 0))
    labels = [("inference", "training", "cpu")[i % 3] for i in range(3000)]
    futures = [both[label].submit(lambda i=i: i, {"priority": -i}) for i, label in enumerate(labels)]
    assert [future.result(20) for future in futures] == list(range(3000))
