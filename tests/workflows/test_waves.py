"""Dynamic sampling: groups of one outcome are made up for in fixed waves, by real stages with scripted agents."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps import artifacts, stages
from apps.inference import traces
from apps.records import Artifact
from apps.reward import variance, verdicts
from tests.workflows import at_once
from tests.workflows.test_steps import planned
from workflows import config, post_train
from workflows.plan import Node, Plan

SMALL = ("engine.name=scripted", "credit.name=uniform", "rounds=2", "rollout.tasks=6", "rollout.samples=2",
         "rollout.plan=independent", "evaluation.tasks=2", "evaluation.validation_tasks=2", "evaluation.shown_tasks=2",
         "tasks.levels=[2]", "tasks.train=60", "tasks.validation=8", "tasks.test=8")  # fmt: skip


def of_round(plan: Plan, stage: str, number: int = 1) -> list[Node]:
    return [n for n in plan.nodes.values() if n.stage.name == stage and n.round == number and "train" in str(n.options)]


def refills(plan: Plan, number: int = 1) -> list[Node]:
    return [n for n in plan.nodes.values() if n.stage.name == "refill" and n.round == number]


def test_one_wave_is_no_other_plan_than_before():
    assert not refills(planned("rollout.waves=1"))
    assert set(planned("rollout.waves=1").nodes) == set(planned().nodes)


def test_each_wave_hangs_on_a_decision_about_all_before_it():
    plan = planned("rollout.waves=3", "rollout.shards=2")
    first, second = refills(plan)
    assert [len(node.inputs["rollout"]) for node in (first, second)] == [2, 4]
    assert all([len(n.inputs["grade"]) == len(n.inputs["rollout"]) for n in (first, second)])
    played = [n for n in plan.nodes.values() if n.stage.name == "rollout" and n.round == 1]
    assert [n.inputs.get("refill", [None])[0] for n in played] == [None, None, first, first, second, second]
    assert [n.options["take"].get("part") for n in played] == [None, None, [0, 2], [1, 2], [0, 2], [1, 2]]
    assert {tuple(n.options["take"][k] for k in ("start", "window")) for n in played[2:]} == {(16, 48), (32, 48)}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Plan:
    """Carried out at once, a task after another."""
    plan = Plan(at_once.launcher(tmp_path_factory.mktemp("store")))
    post_train.dag(config.load(config.PostTrain, None, (*SMALL, "rollout.waves=3", "rollout.shards=2")), plan)
    return plan


def scores(nodes: list[Node]) -> list[tuple[str, float]]:
    found = []
    for node in nodes:
        shard = Path(node.inputs["rollout"][0].future.result().path)
        graded = verdicts.read(Path(node.future.result().path), traces.read(shard / traces.FILE))
        found += [(g.trace.task, g.verdict.score) for g in graded]
    return found


@pytest.mark.parametrize("number", [1, 2])
def test_a_wave_plays_just_what_is_wanted(run, number):
    first, second = refills(run, number)
    waves = [first.inputs["grade"], second.inputs["grade"][2:]]
    waves.append([n for n in run.nodes.values() if n.stage.name == "grade" and n.round == number][4:])
    played = [list(dict.fromkeys(task for task, _ in scores(wave))) for wave in waves]
    wanted = [6] + [stages.facts_of(node.future.result())["wanted"] for node in (first, second)]
    assert list(map(len, played)) == wanted
    assert 0 < wanted[2] <= wanted[1] < 6, "this seed wants more after each wave"
    assert len({task for wave in played for task in wave}) == sum(wanted)
    assert wanted[1] == 6 - len(differing(scores(waves[0])))
    assert wanted[2] == 6 - len(differing(scores(waves[0] + waves[1])))


def differing(rows):
    found = {}
    for task, score in rows:
        found.setdefault(task, set()).add(score)
    return [task for task, given in found.items() if len(given) > 1]


def test_all_that_was_played_gets_its_credit(run):
    for number in (1, 2):
        judged = [n for n in run.nodes.values() if n.stage.name == "grade" and n.round == number]
        assigned = [n for n in run.nodes.values() if n.stage.name == "assign" and n.round == number]
        assert [n.inputs["grade"][0] for n in assigned] == judged and len(judged) == 6


def test_a_wave_of_nothing_is_an_empty_shard(run, tmp_path):
    """All is varied: the next wave plays nothing, and nothing follows from it."""
    one = next(n for n in run.nodes.values() if n.stage.name == "rollout" and "refill" in n.inputs)
    with artifacts.new(tmp_path, "refill", "none", {}) as out:
        verdicts.write_refill(out, {"wanted": 0})
    given = {name: [n.future.result() for n in nodes] for name, nodes in one.inputs.items()}
    given["refill"] = [Artifact("refill", "none", str(artifacts.locate(tmp_path, "refill", "none")))]
    made = stages.execute(stage="rollout", key="k", module=one.stage.module, root=str(tmp_path), pool="",
                          options=dict(one.options), machine={"model": ""}, given=given)  # fmt: skip
    assert traces.read(Path(made.path) / traces.FILE) == [] and stages.facts_of(made)["traces"] == 0
    node = next(n for n in run.nodes.values() if n.stage.name == "grade")
    graded = stages.execute(stage="grade", key="k", module=node.stage.module, root=str(tmp_path), pool="",
                            options=dict(node.options), machine={}, given={**given, "rollout": [made]})  # fmt: skip
    assert stages.facts_of(graded)["traces"] == 0
    for name in ("assign", "replay"):
        options = {**one.options, **node.options, "credit": {"name": "shapley"}}
        rest = stages.execute(stage=name, key="k", module="apps.credit.app", root=str(tmp_path), pool="",
                              options=options, machine={"model": ""},
                              given={**given, "rollout": [made], "grade": [graded]})  # fmt: skip
        assert stages.facts_of(rest).get("replays") == 0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([0.0, 0.5, 1.0]))))
def test_a_group_is_varied_if_two_of_its_scores_differ(rows):
    found = variance.varied(rows)
    assert found == differing(rows)
    assert variance.wanting(2, rows) == max(0, 2 - len(found))
