"""Distillation as a plan: who plays, in whose words, from whose rows each agent is trained; and what is refused beforehand."""

from __future__ import annotations

import shutil

import pytest

from apps.records import MeritError
from tests.models import make_adapter
from workflows import config, distill, model
from workflows.plan import Plan


def planned(*words: str) -> tuple[Plan, dict]:
    plan = Plan()
    return plan, distill.dag(config.load(distill.Config, None, ["made_in=1", *words]), plan)


def of(plan: Plan, stage: str, number: int) -> list:
    return [node for node in plan.nodes.values() if node.stage.name == stage and node.round == number]


def plays(plan: Plan, number: int) -> list:
    return [node for node in of(plan, "rollout", number) if node.options["seed"].split("/")[1] == "train"]


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """The embedded model in other clothes: a folder with another digest."""
    folder = tmp_path_factory.mktemp("other") / "model"
    shutil.copytree(model.EMBEDDED, folder)
    (folder / "generation_config.json").write_text((folder / "generation_config.json").read_text() + "\n")
    return folder


def test_without_a_teacher_one_is_made_and_an_untrained_team_learns_from_it():
    plan, found = planned()
    (teacher,) = of(plan, "promote", 1)
    assert {node.options["objective"]["name"] for node in of(plan, "train", 1)} == {"grpo"}
    taught = of(plan, "train", 2)
    assert {node.options["objective"]["name"] for node in taught} == {"sft"}
    assert {node.inputs["policies"][0] for node in plays(plan, 2)} == {teacher}
    assert {node.inputs["policies"][0] for node in taught} == {found["untrained"]}
    (rows,) = {node.inputs["batch"][0] for node in taught}
    assert rows.inputs["policies"] == [teacher]  # its turns count
    assert not of(plan, "retell", 2) and found["report"].options["stages"] == ["post_train", "distill"]


def test_a_teacher_with_another_model_and_prompt_is_told_again_in_the_pupils_words(other):
    plan, found = planned(f"teacher.model={other}", 'teacher.prompts.solver="Think: {question}"')
    spoken, told = plays(plan, 1), of(plan, "retell", 1)
    (teacher,) = {node.inputs["policies"][0] for node in spoken}
    assert set(teacher.options["models"].values()) == {model.identity(str(other))}
    assert {node.options["prompts"]["solver"] for node in spoken} == {"Think: {question}"}
    assert [node.inputs["rollout"][0] for node in told] == spoken
    assert "Think" not in told[0].options["prompts"]["solver"] and told[0].inputs["policies"] == [found["untrained"]]
    (rows,) = {node.inputs["batch"][0] for node in of(plan, "train", 1)}
    assert rows.inputs["rollout"] == told and rows.inputs["policies"] == [teacher]
    assert model.places({"stages": [{"teacher": {"model": str(other)}}]}) == {model.identity(str(other)): str(other)}


def test_white_box_the_trainer_is_given_the_teacher_and_on_policy_the_pupil_plays(tmp_path):
    make_adapter(model.EMBEDDED, tmp_path / "solver")
    words = (f"teacher.adapters={tmp_path}", "objective.name=distill", "teacher.speaks=false", "rounds=2")
    plan, found = planned(*words)
    (adopted,) = of(plan, "adopted", 0)
    assert {node.inputs["teacher"][0] for n in (1, 2) for node in of(plan, "train", n)} == {adopted}
    (left,) = of(plan, "promote", 1)
    assert {node.inputs["policies"][0] for node in plays(plan, 1)} == {found["untrained"]}
    assert {node.inputs["policies"][0] for node in [*plays(plan, 2), *of(plan, "train", 2)]} == {left}


def test_as_a_stage_it_can_go_on_with_the_team_that_it_finds():
    plan = Plan()
    settings = ["rounds=1", "stages=[dpo, {name: distill, untrained: false, teacher: {model: embedded}}]"]
    from workflows import post_train

    post_train.dag(config.load(config.PostTrain, None, settings), plan)
    (left,) = of(plan, "promote", 1)
    assert {node.inputs["policies"][0] for node in of(plan, "train", 2)} == {left}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["objective.name=grpo"], r"stages\[1\] \(distill\): objective.name=grpo compares the policy with who sampled"),
        (["teacher.speaks=false"], r"would learn nothing of the teacher; take objective.name=distill"),
        (["teacher.adapters=/nowhere"], r"teacher.adapters=/nowhere: there is no such file or folder"),
        (["teacher.model=/nowhere"], r"/nowhere"),
        (["teacher.prompts.solvr=Think"], r"role of solve_critique_revise: there is no 'solvr'; did you mean 'solver'"),
        (["engine.name=scripted"], r"scripted agents have nothing to train"),
    ],
)
def test_what_cannot_be_taught_is_refused_before_anything_runs(words, said):
    with pytest.raises(MeritError, match=said):
        planned(*words)


def test_an_objective_that_reads_a_teacher_wants_one():
    from workflows import post_train

    with pytest.raises(MeritError, match="objective.name=distill reads a teacher's distributions.*there is no teacher"):
        post_train.dag(config.load(config.PostTrain, None, ["objective.name=distill"]), Plan())
