"""Tasks that hang, or whose host does, are begun once more elsewhere, long before heartbeats or a timeout would notice."""

from __future__ import annotations

import os
import signal
from concurrent.futures import Future
from pathlib import Path

import pytest

from tests.checkout import wait_for
from tests.survival import namespaces, trouble
from tests.survival.cluster import PATIENCE_S, Cluster, at_work, facts, value
from workflows.driver import overdue

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("namespaces")]


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(overdue, "LEAST_S", 1.0)
    monkeypatch.setattr(overdue, "EVERY_S", 0.2)


def launch(cluster: Cluster, number: int, *troubles: str, seconds: float = 0.2) -> Future:
    for name in troubles:
        (cluster.folder / name).touch()
    take = {"number": number, "folder": str(cluster.folder), "troubles": troubles, "seconds": seconds}
    return cluster.launch(0, stage=trouble.SHARD, take=take)


def family(pid: int) -> list[int]:
    """A process and all below it."""
    children = Path(f"/proc/{pid}/task").glob("*/children")
    return [pid, *(other for file in children for child in file.read_text().split() for other in family(int(child)))]


def test_a_task_that_takes_far_longer_than_others_is_done_elsewhere_and_its_own_end_is_no_fault(tmp_path):
    with at_work(tmp_path, inference=True, managers=2, workers=2, heartbeat_s=30) as cluster:
        first = overdue.ENOUGH + 4  # what a worker does first tells nothing
        assert [value(task) for task in [launch(cluster, number) for number in range(first)]] == list(range(first))
        hangs = launch(cluster, 99, "wait")
        assert value(hangs) == 99
        assert cluster.attempts(99) == 2 and "overdue, and begun once more elsewhere: 1 on " in cluster.said.getvalue()
        (tmp_path / "go").touch()
        assert [value(launch(cluster, 200 + number)) for number in range(8)] == list(range(200, 208))
        assert len(list((tmp_path / "store" / "shard").glob("*/*/manifest.json"))) == first + 9


def test_one_that_fails_by_itself_fails_at_once_and_is_not_tried_twice(tmp_path):
    with at_work(tmp_path, inference=True, managers=1, workers=2, heartbeat_s=30) as cluster:
        with pytest.raises(Exception, match="another tokenizer"):
            launch(cluster, 3, "refuse").result(PATIENCE_S)
        assert cluster.attempts(3) == 1


@pytest.mark.skipif(not namespaces.allowed(), reason="network namespaces want root, and iproute2")
def test_of_three_overdue_tasks_of_a_host_all_that_it_has_are_begun_again_and_it_rests(tmp_path):
    with namespaces.some(3) as hosts:
        given = {"hosts": ",".join(hosts), "address": namespaces.ADDRESS, "workers": 4, "heartbeat_s": 60}
        with at_work(tmp_path, inference=True, **given) as cluster:
            for task in [launch(cluster, number) for number in range(24)]:
                value(task)
            first = launch(cluster, 50, "wait")  # who its manager is
            manager = cluster.waiting()[2]
            frozen = family(manager)
            bad = (tmp_path / "attempts-50").read_text().split()[0]
            busy = [launch(cluster, number, seconds=1.0) for number in range(60, 84)]
            assert wait_for(lambda: sum(cluster.attempts(n) for n in range(60, 84)) >= 8, PATIENCE_S)
            for pid in frozen:
                os.kill(pid, signal.SIGSTOP)
            try:
                assert [value(task) for task in busy] == list(range(60, 84)) and value(first) == 50
                said = cluster.said.getvalue()
                assert f"on {bad}" in said
                after = {facts(launch(cluster, number))["host"] for number in range(90, 96)}
                assert bad not in after
            finally:
                for pid in frozen:
                    os.kill(pid, signal.SIGCONT)
