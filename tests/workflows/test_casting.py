"""Who is trained in which round, who plays beside whom, and what shared policies and models of their own change of a plan."""

from __future__ import annotations

from pathlib import Path

import pytest

from apps.records import MeritError
from tests import models
from workflows import config, post_train
from workflows.plan import Node, Plan

ROLES = ["solver", "critic", "reviser", "verifier"]


def planned(*words: str) -> tuple[Plan, dict[str, Node]]:
    plan = Plan()
    return plan, post_train.dag(config.load(config.PostTrain, None, words), plan)


def of(plan: Plan, stage: str, number: int | None = None) -> list[Node]:
    return [n for n in plan.nodes.values() if n.stage.name == stage and number in (None, n.round)]


def played(plan: Plan, number: int) -> list[Node]:
    """The training shards of a round."""
    return [n for n in of(plan, "rollout", number) if n.options["seed"].split("/")[1] == "train"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], [ROLES, ROLES, ROLES]),
        (["schedule.name=alternating"], [["solver"], ["critic"], ["reviser"]]),
        (["schedule={name: best_response, rounds: 2}"], [["solver"], ["solver"], ["critic"]]),
        (["schedule.name=pool"], [ROLES, ROLES, ROLES]),
        (["schedule.name=alternating", "team.share={critic: reviser}"], [["solver"], ["reviser"], ["verifier"]]),
    ],
)
def test_who_is_trained_is_what_the_schedule_says(words, expected):
    plan, _ = planned("rounds=3", *words)
    assert [[n.options["agent"] for n in of(plan, "train", number)] for number in (1, 2, 3)] == expected
    assert [n.options["agents"] for number in (1, 2, 3) for n in of(plan, "batch", number)] == expected
    for number in (1, 2, 3):
        (batch,) = of(plan, "batch", number)
        before = batch.inputs["policies"]
        assert all(n.inputs["policies"] == before for n in of(plan, "train", number))


def test_the_pool_plays_some_shards_with_the_past_and_replays_them_with_the_same_team():
    plan, found = planned("rounds=3", "schedule.name=pool", "rollout.shards=4", "credit.name=leave_one_out")
    decided = {n.round: n for n in of(plan, "promote")}
    teams = [found["untrained"], decided[1], decided[2], decided[3]]
    assert [n.inputs["policies"] for n in played(plan, 1)] == [[teams[0]]] * 4
    for number in (2, 3):
        whole, rest = played(plan, number)[:2], played(plan, number)[2:]
        assert [n.inputs["policies"] for n in whole] == [[teams[number - 1]]] * 2
        for shard in rest:
            (cast,) = shard.inputs["policies"]
            assert cast.stage.name == "cast" and cast.inputs["policies"] == [teams[number - 1]]
            assert cast.inputs["past"][0] in teams[: number - 1] and len(cast.options["guests"]) == 3
        replays = of(plan, "replay", number)
        assert [n.inputs["policies"] for n in replays] == [n.inputs["rollout"][0].inputs["policies"] for n in replays]


def test_guests_bring_who_shares_their_policy():
    plan, _ = planned("rounds=3", "schedule.name=pool", "team.share={critic: reviser}")
    for cast in of(plan, "cast"):
        assert ("critic" in cast.options["guests"]) == ("reviser" in cast.options["guests"])


def test_a_shared_policy_is_one_task_of_training():
    plan, found = planned("rounds=1", "team.share={critic: reviser}")
    assert [n.options["agent"] for n in of(plan, "train")] == ["solver", "reviser", "verifier"]
    assert of(plan, "batch")[0].options["share"] == found["untrained"].options["share"] == {"critic": "reviser"}


def test_what_is_not_asked_for_is_in_no_key():
    plan, found = planned("rounds=1")
    assert set(found["untrained"].options) == {"agents"} and "share" not in of(plan, "batch")[0].options
    same, _ = planned("rounds=1", "team.share={}", "schedule.name=simultaneous", "team.models={critic: embedded}")
    assert [n.key for n in plan.nodes.values() if n.stage.name != "report"] == [
        n.key for n in same.nodes.values() if n.stage.name != "report"
    ]
    other, _ = planned("rounds=1", "schedule.name=alternating")
    assert {n.key for n in played(plan, 1)} == {n.key for n in played(other, 1)}, "the first round's plays are shared"


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    return models.make_model(tmp_path_factory.mktemp("own"), seed=3)


def test_a_base_model_of_its_own_is_in_the_keys_by_its_contents(own):
    plan, found = planned("rounds=1", f"team.models.critic={own}")
    plain, _ = planned("rounds=1")
    made_of = {n.options["agent"]: n.options["base_model"] for n in of(plan, "train")}
    assert len({made_of[r] for r in ("solver", "reviser", "verifier")}) == 1 and made_of["critic"] != made_of["solver"]
    assert found["untrained"].options["models"] == {"critic": made_of["critic"]}
    assert str(own) not in str([n.options for n in plan.nodes.values() if n.stage.name != "report"])
    assert not {n.key for n in of(plan, "rollout")} & {n.key for n in of(plain, "rollout")}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["team.share={critik: reviser}"], "team.share: role: .*did you mean 'critic'"),
        (["team.share={critic: revisor}"], "team.share: role: .*did you mean 'reviser'"),
        (["team.share={critic: reviser, reviser: solver}"], "critic shares .* of reviser, which shares that of solver"),
        (["team.share={critic: reviser, reviser: critic}"], "just one of the two"),
        (["team.share={critic: reviser}", "team.models={critic: embedded}"], "give the model to reviser"),
        (["team.models={critik: embedded}"], "team.models: role: .*did you mean 'critic'"),
        (["team.models={critic: /nowhere}"], "team.models.critic=/nowhere: there is no Hugging Face model folder"),
        (["team.models={critic: embedded}", "engine.name=scripted"], "scripted agents have no model"),
        (["schedule.name=alternatin"], "did you mean 'alternating'"),
        (["schedule.name=pool", "rollout.shards=1", "rounds=2"], "schedule.share=0.5 of rollout.shards=1 is not one shard"),
        (["training.lora=null", "objective.beta=0.1"], "training.lora=null trains all weights; set objective.beta=0"),
        (["training.lora.quantise=nf4"], "quantise=nf4|engine.quantise=None"),
        (["engine.quantise=nf4"], "quantise=nf4|training.lora.quantise=None"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told_before_anything_runs(words, said):
    with pytest.raises(MeritError, match=said):
        planned(*words)
