"""Value models in the plan of a run: who is asked, who learns, and from whom the next round goes on."""

from __future__ import annotations

import pytest

from apps.records import MeritError
from workflows import config, post_train
from workflows.plan import Plan


def planned(*words: str) -> Plan:
    plan = Plan()
    post_train.dag(config.load(config.PostTrain, None, ("rounds=2", "credit.name=uniform", *words)), plan)
    return plan


def of(plan, stage):
    return [node for node in plan.nodes.values() if node.stage.name == stage]


def test_without_an_advantage_that_wants_it_nothing_is_foreseen():
    plan = planned()
    assert not of(plan, "values") and not of(plan, "reference") and len(of(plan, "train")) == 8
    assert {node.key for node in of(planned("value_model.clip=null"), "train")} == {n.key for n in of(plan, "train")}


@pytest.mark.parametrize(("view", "models"), [("own", 4), ("team", 1)])
def test_value_models_go_on_from_round_to_round_and_are_not_promoted(view, models):
    plan = planned("objective.name=ppo", "advantage.name=gae", f"value_model.view={view}")
    first, second = of(plan, "batch")
    assert len(first.inputs["values"]) == len(first.inputs["rollout"]) == 2 and "reference" not in first.inputs
    taught = [node for node in of(plan, "train") if node.options["agent"].endswith(".value")]
    assert len(taught) == 2 * models and {node.options["objective"]["name"] for node in taught} == {"value"}
    (team,) = second.inputs["values"][0].inputs["policies"]
    assert team.stage.name == "gather" and team.inputs["train"] == taught[:models]
    assert taught[models].inputs["policies"] == [team]
    assert not {node for p in of(plan, "promote") for nodes in p.inputs.values() for node in nodes} & {team}


@pytest.mark.parametrize("name", ["rloo", "reinforce_plus_plus", "gae"])
def test_the_kl_in_the_reward_asks_the_reference(name):
    plan = planned("objective.name=ppo", f"advantage.name={name}", "advantage.kl_in_reward=0.1")
    (first, _) = of(plan, "batch")
    assert [node.inputs["rollout"] for node in first.inputs["reference"]] == [[n] for n in first.inputs["rollout"]]
    assert not {"policies"} & set(first.inputs["reference"][0].inputs)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["objective.name=value"], "objective.name=value teaches a scalar head, and agents have to speak"),
        (["advantage.name=gae", "value_model.training.lora=null"], "value_model.training.lora=null trains none"),
        (["advantage.name=gae", "value_model.vew=own"], "value_model.*'vew'; did you mean 'view'"),
        (["value_model.view=all"], "value_model.view"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_played(words, said):
    with pytest.raises(MeritError, match=said):
        planned(*words)


def test_models_of_another_tokenizer_are_not_read_by_the_runs_own():
    with pytest.raises(MeritError, match="team.models gives critic others"):
        planned("advantage.name=gae", "team.models={critic: embedded}")
