"""A run simulated: hand-worked schedules, the conservation of time, failures and walltimes, and the shape of the real plan."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.records import MeritError
from workflows.config import PostTrain
from workflows.simulation import forecast, times
from workflows.simulation.events import Simulation, noticed
from workflows.simulation.placement import POLICIES, Policy
from workflows.simulation.shape import Group, Need
from workflows.simulation.times import Failures, Times, Training


def told(**more) -> Times:
    given_ = {"what": "test", "stages": {"rollout": 10, "grade": 1}, "train": Training(seconds=40, nodes=1, most=4)}
    return Times(**{**given_, "shards": {}, "tiles": 2, "cores": 2, **more})


def rollouts(count: int, *needs: Need) -> Group:
    return Group("rollout", "inference", 1, count, needs)


PLAIN = Policy(kept=0, soon=0, overdue=0, late=2)
FIXED = POLICIES["fixed"]


def simulated(groups, nodes=1, training=1, policy=PLAIN, **more):
    return Simulation(groups, told(**more), nodes, training, policy).run()


def test_tasks_wait_for_tiles():
    found = simulated([rollouts(5)])  # 2 tiles: 3 waves of 10 s
    assert found.hours * 3600 == 30 and found.busy == 50 and found.utilisation == 50 / 60 and found.waiting == 10
    assert simulated([rollouts(5)], nodes=3).hours * 3600 == 10


def test_a_shard_goes_on_when_it_is_ready_and_a_whole_when_all_are():
    graded = Group("grade", "cpu", 1, 3, (Need(0, True),))
    again = rollouts(3, Need(1, True))
    # tiles: 0-10 two rollouts, 10-20 the third beside the first graded one's (from 11); 21, 31 …
    each = simulated([rollouts(3), graded, again])
    whole = simulated([rollouts(3), graded, rollouts(3, Need(1, False))])
    assert each.hours * 3600 == pytest.approx(31) and whole.hours * 3600 == pytest.approx(41)


def test_a_worker_loads_its_model_once_a_job():
    found = simulated([rollouts(4)], load=5)
    assert found.hours * 3600 == 25 and found.loading == 10 and found.busy == 40


@pytest.mark.parametrize(("training", "seconds"), [(1, 10 + 40 + 40), (2, 10 + 40), (4, 10 + 20)])
def test_training_takes_whole_nodes_and_is_faster_on_more(training, seconds):
    train = Group("train", "training", 1, 2, (Need(0, False),))
    found = simulated([rollouts(2), train], nodes=5, training=training, policy=FIXED)
    assert found.hours * 3600 == pytest.approx(seconds)
    assert found.busy == pytest.approx(20 + 2 * 80)  # tile-seconds stay: half the time on twice the nodes


def test_training_takes_nodes_from_inference_where_none_are_set_aside():
    train = Group("train", "training", 1, 1, (Need(0, False),))
    found = simulated([rollouts(2), train, rollouts(2, Need(1, False))], nodes=1)
    assert found.hours * 3600 == pytest.approx(10 + 40 + 10) and found.busy == 40 + 80


def test_what_does_not_fit_before_the_end_waits_for_the_next_job():
    found = simulated([rollouts(6)], job_hours=25 / 3600, queue=100)
    assert found.jobs == 2 and found.lost == 0
    assert found.hours * 3600 == pytest.approx(20 + 100 + 10)  # a third wave would end at 30
    with pytest.raises(MeritError, match="no task fits"):
        simulated([rollouts(1)], job_hours=5 / 3600)


def test_a_failed_nodes_tasks_begin_anew_once_it_is_noticed():
    assumed = told(failures=Failures(per_hour=36, nodes=10, notice=30))
    found = Simulation([rollouts(400)], assumed, 10, policy=PLAIN, seed=1).run()
    calm = simulated([rollouts(400)], nodes=10)
    assert found.failures > 0 and found.lost > 0 and found.dead > 0 and found.busy == calm.busy == 4000
    assert found.hours > calm.hours


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(1, 30), st.integers(1, 9), st.integers(0, 8), st.floats(0, 0.5), st.floats(0, 40), st.integers(0, 9))
def test_time_is_conserved_and_never_better_than_the_work_allows(count, nodes, training, spread, rate, seed):
    groups = [rollouts(count), Group("grade", "cpu", 1, count, (Need(0, True),)), rollouts(count, Need(1, True))]
    groups.append(Group("train", "training", 1, 2, (Need(2, False),)))
    groups.append(rollouts(1, Need(3, False)))
    assumed = told(spread=spread, failures=Failures(per_hour=rate, nodes=9, notice=20), load=3, job_hours=0.2, queue=7)
    policy = FIXED if 0 < training < nodes and seed % 2 else POLICIES["measured"]
    one, again = (Simulation(groups, assumed, nodes, max(1, training), policy, seed).run() for _ in range(2))
    assert one == again
    assert 0 < one.utilisation <= 1 and one.waiting >= -1e-6 * one.offered
    if not spread and not one.failures:
        assert one.busy == pytest.approx(10 * (2 * count + 1) + 2 * 80)


def trains(*needs: Need, count=1, round=1):
    return Group("train", "training", round, count, needs)


def test_nodes_are_lent_before_training_is_ready_so_that_they_have_ended_by_then():
    # 2 nodes of 2 tiles, a play of 10 s, two of 20, which training waits for too, and others; when one is left a node is lent
    first, second, others = rollouts(1), replace(rollouts(2), stage="long"), replace(rollouts(9), stage="other")
    groups = [first, second, trains(Need(0, False), Need(1, False)), others]
    stages = {"rollout": 10, "long": 20, "other": 6}

    def found(soon):
        return simulated(groups, 2, policy=replace(PLAIN, soon=soon), stages=stages)

    # ahead: two plays are left at 10, then one node of two idles from 12 on, when its others are done; else from 20 to 24
    assert found(0.5).hours * 3600 == pytest.approx(20 + 40) and found(0).hours * 3600 == pytest.approx(24 + 40)


def test_a_node_that_trained_has_its_models_loaded_again():
    groups = [rollouts(2), trains(Need(0, False)), rollouts(2, Need(1, False))]
    assert simulated(groups, load=5).loading == pytest.approx(2 * (5 + 5 + 5))  # play, train, play, on two tiles


def test_the_drivers_node_trains_and_never_plays():
    found = simulated([rollouts(4), trains(Need(0, False))], nodes=2, policy=replace(PLAIN, kept=1))
    assert found.hours * 3600 == pytest.approx(20 + 40) and found.lent == pytest.approx(2 * 20)
    assert simulated([rollouts(4)], nodes=1, policy=replace(PLAIN, kept=1)).hours * 3600 == 20  # if there is another


def test_a_task_of_a_failed_node_is_begun_again_when_it_is_overdue():
    def hours(overdue):
        assumed = told(failures=Failures(per_hour=36, nodes=10, notice=3000), spread=0.1)
        return Simulation([rollouts(400)], assumed, 10, policy=replace(PLAIN, overdue=overdue), seed=1).run()

    waiting, impatient = hours(0), hours(3)
    assert waiting.failures and waiting.hours * 3600 > 3000  # until the failure is noticed
    assert impatient.hours * 3600 < 400 and impatient.lost > 0


def test_of_three_overdue_tasks_of_a_node_all_that_it_had_are_begun_again():
    assert noticed([60, 70, 80, 90, 95, 100], 600) == [60, 70, 80, 80, 80, 80]
    assert noticed([60, 70], 65) == [60, 65] and noticed([], 600) == []
    assert noticed([math.inf] * 4, 600) == [600] * 4  # a driver that does not look


def test_of_two_who_do_a_task_the_first_counts():
    alone = Simulation([rollouts(1)], told(spread=1.5), 2, policy=replace(PLAIN, overdue=0.01), seed=4)
    alone.draws = iter([9.0, 2.0])  # 90 s, and from 10.15 on a copy of 20
    found = alone.run()
    assert found.busy == pytest.approx(20) and found.hours * 3600 == pytest.approx(30.15, abs=0.01)
    assert found.lost == pytest.approx(found.hours * 3600)  # the first of the two, stopped


def test_near_a_jobs_end_a_shorter_task_goes_before_one_that_does_not_fit():
    groups = [rollouts(3), rollouts(1, Need(0, False))]
    groups[1] = replace(groups[0], stage="short", count=1)
    given_ = {"stages": {"rollout": 10, "short": 4}, "job_hours": 16 / 3600}
    found = simulated(groups, nodes=1, **given_)
    assert found.jobs == 2 and found.ending == pytest.approx(4)  # the other tile, beside the short one
    assert found.hours * 3600 == pytest.approx(14 + 10)  # the first job is given back when nothing fits any more


def test_training_goes_on_in_the_next_job_where_it_was():
    train = Group("train", "training", 1, 1, ())
    found = simulated([train], job_hours=25 / 3600)  # 40 s of work on one node
    assert found.jobs == 2 and found.lost == 0 and found.busy == 80
    assert found.hours * 3600 == pytest.approx(40)


def test_the_shape_is_that_of_the_real_plan():
    config = PostTrain()
    assumed = told(shards={"rollout": 50, "evaluation": 7})
    groups = forecast.groups_of(config, assumed, 0, 2)
    first = [group for group in groups if group.round == 1]
    assert [(g.stage, g.count) for g in first[:4]] == [(s, 50) for s in ("rollout", "grade", "replay", "assign")]
    number = groups.index(first[0])
    assert Need(number, True) in first[1].needs and all(not need.each for need in first[0].needs)
    tests = [group for group in groups if group.kind == "evaluation" and group.stage == "rollout"]
    assert {group.count for group in tests} == {7} and len(tests) == 7  # greedy and sampled twice; validation thrice


def test_overlap_lets_a_round_begin_before_the_last_one_has_trained():
    config = PostTrain()
    assumed = told(shards={"rollout": 4, "evaluation": 2})

    def waits(overlap):
        groups = forecast.groups_of(config, assumed, overlap, 3)
        third = next(g for g in groups if g.stage == "rollout" and g.round == 3)
        return {groups[need.group].round for need in third.needs if groups[need.group].stage == "promote"}

    assert waits(0) == {2} and waits(1) == {1}


def test_files_of_stage_times(tmp_path):
    assert times.read(forecast.Path(__file__).parents[3] / "docs" / "stage_times.yaml").stages["replay"] == 300
    for text, message in (("[1]", "mapping"), ("what: x\nstagess: {}", "stages"), ("a: [", "YAML")):
        (tmp_path / "t.yaml").write_text(text)
        with pytest.raises(MeritError, match=message):
            times.read(tmp_path / "t.yaml")
    with pytest.raises(MeritError, match="no file"):
        times.read(tmp_path / "none.yaml")
    with pytest.raises(MeritError, match="numbers"):
        forecast.numbers("1,x")


def test_training_time_is_inverse_in_nodes_up_to_the_most():
    train = Training(seconds=240, nodes=16, most=64)
    assert [train.on(n) for n in (1, 16, 64, 128)] == [3840, 240, 60, 60]
    assert math.isclose(told(spread=0.0).seconds("rollout", "evaluation"), 10)
