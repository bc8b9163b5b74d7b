"""STaR's second tries: what nobody got right is played with the answer in sight, told again without it, and learnt from."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.inference import rationale, traces
from apps.records import MeritError, Task
from apps.reward import verdicts
from tests.workflows import at_once
from workflows import config, post_train
from workflows.plan import Node, Plan

HINT = " (The answer is {answer}.)"
STAR = ("topology.name=single", f"stages=[{{name: star, rounds: 2, rollout: {{hint: '{HINT}'}}}}]")
SMALL = ("engine.name=scripted", "topology.name=single", "credit.name=uniform", "rounds=1", "rollout.tasks=12", "rollout.samples=2",
         "rollout.plan=independent", "evaluation.tasks=2", "evaluation.validation_tasks=2", "evaluation.shown_tasks=2",
         "tasks.levels=[2]", "tasks.train=40", "tasks.validation=8", "tasks.test=8", f"rollout.hint={HINT!r}",
         "engine.solve=0.7")  # fmt: skip


def planned(*words: str, launch=None) -> Plan:
    plan = Plan(launch)
    post_train.dag(config.load(config.PostTrain, None, words), plan)
    return plan


def of(plan: Plan, stage: str, number: int = 1) -> list[Node]:
    return [node for node in plan.nodes.values() if node.stage.name == stage and node.round == number]


def test_each_shard_is_tried_once_more_and_told_again_under_the_plain_prompts():
    plan = planned(*STAR)
    helped = [node for node in of(plan, "rollout", 2) if "tried" in node.inputs]
    first = [node for node in of(plan, "rollout", 2) if node.options["seed"].endswith("train/2") and node not in helped]
    told = of(plan, "retell", 2)
    assert [node.inputs["tried"] for node in helped] == [[node] for node in first]
    assert [node.inputs["rollout"] for node in told] == [[node] for node in helped]
    assert {node.options["hint"] for node in helped} == {HINT} and not any("hint" in n.options for n in [*first, *told])
    (rows,) = of(plan, "batch", 2)
    assert rows.inputs["rollout"] == [*first, *told]
    assert [n.inputs["rollout"][0] for n in rows.inputs["grade"]] == [*first, *told]


def test_without_a_hint_no_key_changes():
    plain = planned("topology.name=single", "stages=[star]")
    same = planned("topology.name=single", "stages=[{name: star, rollout: {hint: ''}}]")
    assert set(plain.nodes) - {node.key for node in of(plain, "report", 0)} <= set(same.nodes)
    assert not of(plain, "retell")


def test_a_hint_for_the_whole_run_is_that_of_its_stages():
    plan = planned("topology.name=single", "stages=[{name: star, rounds: 1}]", f"rollout.hint={HINT!r}")
    assert len(of(plan, "retell")) == 2


def test_the_report_tells_of_the_first_tries_alone():
    plan = planned(*STAR)
    (report,) = of(plan, "report", 0)
    assert not any("tried" in n.inputs for n in report.inputs["rollout"])
    assert len(report.inputs["rollout"]) == len(report.inputs["grade"]) == len(report.inputs["assign"]) == 4


def test_nor_does_it_tell_of_replays_of_second_tries():
    words = (
        "credit.name=shapley",
        "objective.name=sft",
        "rollout.plan=independent",
        "rounds=1",
        f"rollout.hint={HINT!r}",
    )
    plan = planned(*words)
    (report,) = of(plan, "report", 0)
    assert len(of(plan, "replay")) == 4
    assert [n.inputs["rollout"][0] for n in report.inputs["replay"]] == list(report.inputs["rollout"])


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Plan:
    """Carried out at once, by real stages with scripted agents."""
    return planned(*SMALL, launch=at_once.launcher(tmp_path_factory.mktemp("store")))


def graded(node: Node):
    shard = Path(node.inputs["rollout"][0].future.result().path)
    return verdicts.read(Path(node.future.result().path), traces.read(shard / traces.FILE))


def test_just_what_nobody_got_right_is_tried_again(run):
    judged = of(run, "grade")
    first, told = judged[:2], judged[2:]
    assert len(told) == 2
    for before, after in zip(first, told, strict=True):
        tried = [g.trace.task for g in graded(after)]
        solved = {g.trace.task for g in graded(before) if g.verdict.right}
        assert tried and tried == [t for t in dict.fromkeys(g.trace.task for g in graded(before)) if t not in solved]
        assert {g.trace.sample for g in graded(after)} == {"hint.0"}


def test_the_hint_was_seen_and_is_not_learnt(run):
    helped = [node for node in of(run, "rollout") if "tried" in node.inputs]
    for node, told in zip(helped, of(run, "retell"), strict=True):
        seen, kept = (traces.read(Path(n.future.result().path) / traces.FILE) for n in (node, told))
        assert all("(The answer is " in trace.turns[0].prompt for trace in seen)
        assert not any("(The answer is " in trace.turns[0].prompt for trace in kept)
        assert [trace.turns[0].text for trace in seen] == [trace.turns[0].text for trace in kept]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans())))
def test_a_task_is_missed_if_no_play_of_it_was_right(played):
    found = rationale.missed(played)
    assert found == [t for t in dict.fromkeys(t for t, _ in played) if not any(well for u, well in played if u == t)]


def test_a_hint_by_hand():
    task = Task("t", "How many?", "12", "arithmetic", "train")
    assert rationale.hinted(task, HINT).question == "How many? (The answer is 12.)"
    assert rationale.hinted(task, HINT).answer == "12"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("objective.name=sft", "rollout.plan=independent", "rollout.hint=' (Think.)'"), r"with \{answer\} in it"),
        (("objective.name=sft", "rollout.plan=independent", "rollout.hint=' {answer} {solution}'"), r"and no other field"),
        (("objective.name=sft", "rollout.plan=independent", "rollout.hint=' {answer'"), r"is no template"),
        (("objective.name=sft", "rollout.hint=' {answer}'"), r"rollout.plan=independent; given tree"),
        (("objective.name=grpo", "rollout.plan=independent", "rollout.hint=' {answer}'"), r"compares the policy with who sampled"),
    ],
)  # fmt: skip
def test_hints_that_cannot_be_learnt_from_are_refused(words, said):
    with pytest.raises(MeritError, match=said):
        planned(*words)
