"""Who has which node: by hand, and whatever happens."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from workflows.cluster.roles import Shares
from workflows.driver.job_nodes import Changes, JobNodes

PLAYING = ("x2.hsn", "x3.hsn", "x4.hsn", "x5.hsn")
BUSY = {"x2": 5, "x3": 1, "x4": 0, "x5": 3}


def job(slot_nodes: int = 2, lends: bool = True, **given) -> JobNodes:
    return JobNodes(Shares(("x1",), PLAYING, slot_nodes, lends), **given)


def test_what_training_wants_is_lent_those_with_the_least_to_end_first():
    nodes = job()
    changes = nodes.step(BUSY, [7], 1)
    assert (changes.granted, changes.lent) == ({}, ["x4.hsn"]) and nodes.lent == ["x4.hsn"]  # x1 is there already
    changes = nodes.step(BUSY, [7], 1)  # its workers have ended
    assert changes.granted == {7: ["x1", "x4.hsn"]} and not changes.lent


def test_a_node_is_emptied_before_it_trains():
    nodes = job(1)
    nodes.step(BUSY, [1, 2], 2)
    assert nodes.has == {1: ["x1"]} and nodes.emptying == ["x4.hsn"]
    assert nodes.step({**BUSY, "x4": 1}, [2], 2).granted == {}
    assert nodes.step(BUSY, [2], 2).granted == {2: ["x4.hsn"]}


def test_nodes_are_lent_ahead_and_go_back_when_nobody_wants_them():
    nodes = job()
    assert nodes.step(BUSY, [], 1).lent == ["x4.hsn"]  # soon
    assert nodes.step(BUSY, [7], 1).granted == {7: ["x1", "x4.hsn"]}
    nodes.let_go(7)
    assert nodes.step(BUSY, [], 0).returned == ["x4.hsn"] and nodes.lent == [] and nodes.free == ["x1"]


def test_one_node_is_left_to_play_and_the_rest_of_training_waits_its_turn():
    nodes = job()
    for _ in range(3):
        nodes.step(
            BUSY if not nodes.emptying else dict.fromkeys(BUSY, 0),
            [task for task in (1, 2, 3) if task not in nodes.has],
            3,
        )
    assert sorted(nodes.has) == [1, 2] and "x2.hsn" not in nodes.lent
    nodes.let_go(1)
    assert list(nodes.step(BUSY, [3], 2).granted) == [3]


def test_nothing_is_lent_where_nodes_are_set_aside():
    nodes = JobNodes(Shares(("x1", "x2", "x3"), PLAYING, 2))
    assert nodes.step(BUSY, [1, 2], 2).granted == {1: ["x1", "x2"]}
    assert nodes.step(BUSY, [2], 2).granted == {} and nodes.lent == []
    nodes.let_go(1)
    assert list(nodes.step(BUSY, [2], 1).granted) == [2]


def test_a_node_whose_workers_are_gone_is_neither_lent_nor_waited_for():
    nodes = job()
    assert nodes.step({"x2": 1, "x3": 0}, [1], 1).lent == ["x3.hsn"]
    assert nodes.step({"x2": 1}, [], 1).lent == [], "it is needed for what is yet to be played"
    assert nodes.step({"x2": 1}, [1], 1).lent == ["x2.hsn"], "all has been played for this one, and its ranks want two"
    assert nodes.step({"x2": 0}, [1], 1).granted == {1: ["x1", "x2.hsn"]}
    nodes.let_go(1)
    assert nodes.step({"x2": 0}, [], 1).returned == ["x2.hsn"]


def test_where_the_job_has_no_more_fewer_will_do():
    nodes = JobNodes(Shares(("x1",), PLAYING, 3, lends=True))
    assert nodes.step({"x2": 0}, [1], 1).lent == ["x2.hsn"]
    assert nodes.step({"x2": 0}, [1], 1).granted == {1: ["x1", "x2.hsn"]}


def test_of_nodes_that_train_it_is_told_which_have_fallen_silent():
    nodes = job()
    for _ in range(2):
        nodes.step(BUSY, [7], 1)
    assert nodes.has == {7: ["x1", "x4.hsn"]} and nodes.silent(BUSY) == {}
    assert nodes.silent({"x2": 1, "x3": 1, "x5": 1}) == {"x4.hsn": 7}, "the driver's own node has no such workers"
    assert nodes.silent({"login1": 1}) == {} and nodes.silent({}) == {}, "nothing is known then"
    nodes.let_go(7)
    assert nodes.step({"x2": 1, "x3": 1, "x5": 1}, [7], 1).granted == {} and "x4.hsn" not in nodes.free


def test_no_more_tasks_have_nodes_than_there_are_workers_for():
    nodes = JobNodes(Shares(("x1",), PLAYING, 1, True, workers=2))
    for _ in range(3):
        nodes.step(dict.fromkeys(BUSY, 0), [task for task in (1, 2, 3) if task not in nodes.has], 3)
    assert sorted(nodes.has) == [1, 2] and nodes.free == [] and len(nodes.lent) == 1


def test_nodes_that_rest_train_only_where_there_are_no_others():
    resting = {"x1", "x4.hsn"}
    nodes = job(rests=resting.__contains__)
    assert nodes.step(BUSY, [1], 1).lent == ["x3.hsn", "x5.hsn"]
    assert nodes.step({**BUSY, "x3": 0, "x5": 0}, [1], 1).granted == {1: ["x3.hsn", "x5.hsn"]}
    alone = JobNodes(Shares(("x1", "x2"), (), 2), lambda host: True)
    assert alone.step({}, [1], 1).granted == {1: ["x1", "x2"]}


def test_what_rests_goes_back_too_when_no_training_wants_it():
    resting = set()
    nodes = job(rests=resting.__contains__)
    for _ in range(2):
        nodes.step(BUSY, [7], 1)
    resting |= {"x1", "x4.hsn"}
    nodes.let_go(7)
    assert nodes.step(BUSY, [], 0).returned == ["x4.hsn"] and nodes.free == ["x1"]


def test_where_all_others_are_lost_a_node_plays_lest_training_waits_for_plays_and_they_for_nodes():
    nodes = job()
    nodes.step(BUSY, [], 1)
    assert nodes.step(BUSY, [], 1).returned == [] and nodes.free == ["x1", "x4.hsn"]
    assert nodes.step({"x4": 0}, [], 1).returned == ["x4.hsn"]
    assert nodes.step({"x4": 3}, [], 1) == Changes() and nodes.lent == []


def test_nodes_whose_workers_are_still_coming_are_waited_for_but_lent_last():
    nodes = job()
    coming = {"x2": 1, "x3": math.inf, "x4": math.inf, "x5": math.inf}
    assert nodes.step(coming, [1], 1).lent == ["x2.hsn"]
    assert nodes.step({**coming, "x2": 0}, [1], 1).granted == {1: ["x1", "x2.hsn"]}
    assert nodes.step({**coming, "x2": 0}, [2], 2).lent == ["x3.hsn", "x4.hsn"]
    assert nodes.step({**coming, "x2": 0}, [2], 2).granted == {}


def test_workers_that_go_by_other_names_are_taken_for_idle():
    nodes = job()
    nodes.step({"login1": 3}, [1], 1)
    assert list(nodes.step({"login1": 3}, [1], 1).granted) == [1]


@settings(max_examples=200)
@given(st.data(), st.integers(1, 3), st.integers(0, 3), st.integers(0, 6), st.booleans())
def test_no_node_has_two_masters_and_all_who_wait_are_served(data, slot_nodes, kept, playing, lends):
    """Tasks of inference come and go, hosts die, training comes in any order; in the end, with all hosts idle, each is served."""
    hosts = [f"x{number}" for number in range(kept + playing)]
    shares = Shares(tuple(hosts[:kept]), tuple(hosts[kept:]), slot_nodes, lends)
    if not shares.slots:
        return
    nodes, waiting, served, number = JobNodes(shares), [], set(), 0
    for _ in range(12):
        for _ in range(data.draw(st.integers(0, 2))):
            waiting, number = [*waiting, number], number + 1
        busy = {host: data.draw(st.integers(0, 2)) for host in hosts[kept:] if data.draw(st.booleans())}
        busy |= {host: 0 for host in busy if host in nodes.lent and host not in nodes.emptying}  # it is given none
        before = {host for host, tasks in busy.items() if tasks} - {h for n in nodes.has.values() for h in n}
        changes = nodes.step(busy, waiting, len(waiting) + len(nodes.has))
        waiting = [task for task in waiting if task not in changes.granted]
        places = [*nodes.free, *nodes.emptying, *(host for given in nodes.has.values() for host in given)]
        assert len(places) == len(set(places)) and set(shares.kept) <= set(places) <= set(hosts)
        assert not before & {h for given in changes.granted.values() for h in given}, "it still plays"
        served |= set(changes.granted)
        for task in [task for task in nodes.has if data.draw(st.booleans())]:
            nodes.let_go(task)
    for _ in range(4 * number + 4):
        changes = nodes.step(dict.fromkeys(hosts[kept:], 0), waiting, len(waiting) + len(nodes.has))
        served, waiting = served | set(changes.granted), [task for task in waiting if task not in changes.granted]
        for task in list(nodes.has):
            nodes.let_go(task)
    assert served == set(range(number))
    nodes.step(dict.fromkeys(hosts[kept:], 0), [], 0)
    nodes.step(dict.fromkeys(hosts[kept:], 0), [], 0)
    assert nodes.lent == [] and sorted(nodes.free) == sorted(shares.kept)
