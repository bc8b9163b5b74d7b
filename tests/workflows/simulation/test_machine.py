"""One machine simulated, by hand; and what tasks cost, from made-up runs whose law is known."""

from __future__ import annotations

import pytest

from workflows.simulation import machine, measured
from workflows.simulation.machine import Machine, Task
from workflows.simulation.measured import Group, Told


def machine_of(cores=2, inference=2, training=2, weight=1):
    width = {"inference": weight, "training": weight}
    return Machine(cores, {"inference": inference, "training": training, "cpu": cores}, width, width)


def play(work, *needs, **more):
    return Task("inference", needs, work, **more)


def test_tasks_wait_for_slots_and_for_those_before_them():
    assert machine.ends([play(4), play(6), play(1), play(2, 1)], machine_of()) == [4, 6, 5, 8]


def test_executors_that_weigh_share_the_cores_and_the_first_of_the_plan_goes_first():
    tasks = [Task("training", (), 5), Task("training", (), 3), play(4), Task("training", (1,), 1)]
    # the play waits, and then stands before the training that became ready meanwhile
    assert machine.ends(tasks, machine_of()) == [5, 3, 7, 6]


def test_what_asks_for_no_core_shares_them_all_the_same():
    tasks = [play(4), play(4), Task("cpu", (), 2, driver=True)]
    assert machine.ends(tasks, machine_of()) == pytest.approx([5, 5, 3])  # three on two cores: two thirds each
    threads = [Task("cpu", (), 2, driver=True), Task("cpu", (), 2, driver=True)]
    assert machine.ends(threads, machine_of()) == pytest.approx([4, 4])  # one interpreter runs one at a time


def test_a_workers_first_task_loads_and_a_delay_needs_no_core():
    assert machine.ends([play(4, load=3), play(2, 0, load=3)], machine_of(1, 1)) == [7, 9]
    assert machine.ends([play(4, delay=10), play(4), play(4)], machine_of(1, 3)) == pytest.approx([14, 8, 8])


def test_a_task_of_several_threads_is_faster_alone():
    assert machine.ends([play(8)], machine_of(2, 1, 1, weight=2)) == [4]


# what tasks cost


def shard(count, seed="0/train/1", **more):
    return Told("rollout", {"take": {"start": 0, "count": count}, "seed": seed, **more}, {})


def test_shards_of_one_group_are_related_and_hold_their_part():
    told = {"a": shard(3), "b": shard(5), "c": shard(5, "0/train/2"), "d": Told("grade", {}, {"rollout": ("a",)})}
    told |= {"e": Told("grade", {}, {"rollout": ("b",)}), "f": Told("measure", {}, {"grade": ("d", "e")})}
    kins, holds = measured.related(told)
    assert kins["a"] == kins["b"] != kins["c"] and kins["d"] == kins["e"]
    assert (holds["a"], holds["b"], holds["e"], holds["f"]) == (3, 5, 5, 1)


def test_a_task_is_like_those_of_other_rounds_but_an_untrained_team_is_like_no_trained_one():
    told = {"base": Told("base", {}, {}), "promote": Told("promote", {}, {})}
    for key, team, purpose in (
        ("a", "base", "test"),
        ("b", "promote", "test"),
        ("c", "base", "train/1"),
        ("d", "promote", "train/2"),
    ):
        told[key] = Told("rollout", {"seed": f"0/{purpose}", "take": {"count": 1}}, {"policies": (team,)})
        told[key + "'"] = Told("grade", {}, {"rollout": (key,)})
    found = measured.alike(told)
    assert found["a"] != found["b"] and found["c"] == found["d"] != found["a"]
    assert found["a'"] != found["b'"] and found["c'"] == found["d'"] != found["c"]


def test_how_a_task_is_trained_makes_no_other_group():
    pair = [Told("train", {"training": {"lr": lr, "ranks": ranks}}, {}) for lr, ranks in ((1, 1), (1, 2), (2, 1))]
    kins, _ = measured.related(dict(zip("abc", pair, strict=True)))
    assert kins["a"] == kins["b"] != kins["c"]


def test_the_fit_finds_what_a_task_and_what_a_token_costs():
    units = [
        dict.fromkeys(measured.UNITS, 0.0) | {"turns": t, "tokens": n} for t, n in ((1, 50), (4, 10), (9, 70), (2, 20))
    ]
    fit = measured._fit(units, [2 + 0.5 * row["turns"] + 0.1 * row["tokens"] for row in units])
    assert fit == pytest.approx({"": 2, "turns": 0.5, "tokens": 0.1})
    downwards = measured._fit(units, [10 - row["turns"] for row in units])
    assert min(downwards.values()) >= 0


def test_smaller_shards_cost_more_together_by_what_every_task_costs():
    fit, group = {"": 2.0, "turns": 0.5}, Group(held=12, shards=2, work=18, units={"turns": 16.0})
    # the fit says 2 · 2 + 8 = 12 where it was 18: this group costs half as much again
    assert measured._factor(fit, group) == 1.5
    assert measured._fitted(fit, group, 3 / 12) == 4.0  # of four shards
