"""Nodes that let tasks down rest, ever longer; the interchange leaves them out while others are there."""

from __future__ import annotations

import pickle
import sys

import pytest
from parsl.executors.high_throughput.manager_selector import BlockIdManagerSelector

from workflows.driver import resting
from workflows.driver.resting import Rested, Resting


def manager(host: str, block: str = "0", active: bool = True, draining: bool = False) -> dict:
    return {"hostname": host, "block_id": block, "active": active, "draining": draining}


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(resting.time, "time", lambda: now[0])
    return now


READY = {b"a": manager("x1", "2"), b"b": manager("x2", "1"), b"c": manager("x3", "0")}


def chosen(folder, ready=READY, label="inference") -> list[bytes]:
    rested = Rested(folder / f"{label}.resting.json", BlockIdManagerSelector())
    return pickle.loads(pickle.dumps(rested)).sort_managers(ready, set(ready))  # as it is sent to the interchange


def test_a_node_rests_longer_each_time_and_then_for_good(tmp_path, clock):
    said = []
    nodes = Resting(tmp_path, said.append)
    assert chosen(tmp_path) == [b"c", b"b", b"a"]  # in the order of the site's own selector
    for rest in resting.RESTS_S:
        nodes.blame("inference", "x2")
        nodes.blame("inference", "x2")  # while it rests: the same incident
        assert chosen(tmp_path) == [b"c", b"a"]
        assert chosen(tmp_path, label="training") == [b"c", b"b", b"a"]
        clock[0] += rest + 1 if rest < float("inf") else 1e9
    assert chosen(tmp_path) == [b"c", b"a"]
    assert said == ["x2 let inference tasks down 3 times: it is given no more, if another node is there"]


@pytest.mark.parametrize("other", [{}, {b"b": manager("x2", active=False)}, {b"b": manager("x2", draining=True)}])
def test_it_works_all_the_same_where_no_other_node_can(tmp_path, clock, other):
    Resting(tmp_path, print).blame("inference", "x1")
    assert b"a" in chosen(tmp_path, {b"a": manager("x1")} | other)


def test_it_may_be_asked_while_another_node_is_blamed(tmp_path, monkeypatch):
    nodes = Resting(tmp_path, print)
    nodes.blame("training", "x1")

    def short(host: str) -> str:
        nodes.blame("training", "x3")
        return host

    monkeypatch.setattr(resting, "short", short)
    assert not nodes.rests("training", "x2")


def test_an_unknown_node_is_not_blamed(tmp_path):
    Resting(tmp_path, print).blame("inference", "")
    assert not list(tmp_path.iterdir())


def test_an_interchange_is_started_with_the_driver_s_interpreter_and_ends_with_it():
    command = resting.tied(["interchange.py"])
    assert command[0] == "env" and command[-2] == sys.executable and command[-1].endswith("interchange.py")
    assert command[2:5] == ["setpriv", "--pdeathsig", "TERM"]
    assert resting.tied(["setpriv", "--pdeathsig", "TERM", "my.py"])[2:] == ["setpriv", "--pdeathsig", "TERM", "my.py"]
