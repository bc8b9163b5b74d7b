"""Three hosts, each a network namespace with a manager: one stops answering, one lets down whatever it is given.

Where namespaces are not allowed, a manager that is stopped stands for the first (test_htex.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.checkout import wait_for
from tests.survival import namespaces, trouble
from tests.survival.cluster import PATIENCE_S, Cluster, at_work, facts, value
from workflows.driver import resting, retries

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not namespaces.allowed(), reason="network namespaces want root, and iproute2"),
]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with pytest.MonkeyPatch.context() as patch, namespaces.some(3) as hosts:
        patch.setattr(retries, "FIRST_S", 0.2)
        patch.setattr(resting, "RESTS_S", (0.5, 0.5, float("inf")))
        given = {"hosts": ",".join(hosts), "address": namespaces.ADDRESS, "workers": 1, "heartbeat_s": 1}
        with at_work(tmp_path_factory.mktemp("nodes"), **given) as found:
            yield found


@pytest.fixture
def cluster(running: Cluster, tmp_path: Path) -> Cluster:
    return running.of_test(tmp_path)


def test_every_host_works(cluster):
    tasks = [cluster.launch(number, seconds=0.3) for number in range(12)]
    assert len({facts(task)["host"] for task in tasks}) == 3


def test_a_host_that_lets_tasks_down_is_blamed_and_then_avoided(cluster):
    bad = facts(cluster.launch(0))["host"]
    (cluster.folder / "bad_host").write_text(bad)
    tasks = [cluster.launch(number, f"spoil-{number}", seconds=0.4) for number in range(1, 25)]
    assert [value(task) for task in tasks] == list(range(1, 25))
    assert bad not in {facts(task)["host"] for task in tasks}
    tried = Counter(line.split()[0] for n in range(1, 25) for line in trouble.attempts(cluster.folder, n))
    assert tried[bad] >= 3 and len(tried) == 3  # more: it has its next task before the driver has heard of the failure
    for task in [cluster.launch(number, f"spoil-{number}") for number in range(31, 43)]:
        task.result(PATIENCE_S)
    assert not [line for n in range(31, 43) for line in trouble.attempts(cluster.folder, n) if line.startswith(bad)]
    said = cluster.said.getvalue()
    assert f"Stale file handle (on {bad}); tried again in 0.2 s (1 of 2)" in said
    assert f"{bad} let cpu tasks down 3 times: it is given no more, if another node is there" in said


def test_a_host_that_stops_answering_is_left_and_ends_by_itself(cluster):
    task = cluster.launch(30, "wait")
    own, _, _ = cluster.waiting()
    host = trouble.attempts(cluster.folder, 30)[0].split()[0]
    before = set(namespaces.processes(host))
    assert own in before
    namespaces.cut(host)
    try:
        assert value(task) == 30 and facts(task)["host"] != host
        assert "loss of manager" in cluster.said.getvalue() and f"on host {host}" in cluster.said.getvalue()
        assert wait_for(lambda: not before & set(namespaces.processes(host)), PATIENCE_S), "it works on, unheard"
    finally:
        namespaces.mended(host)
