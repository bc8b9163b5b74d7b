"""Rounds that overlap: a round is played by the team of the round before the last, trained from the newest, on what was spoken."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from apps.records import MeritError
from workflows import post_train
from workflows.config import validated
from workflows.plan import Plan


def planned(**rollout):
    plan = Plan()
    post_train.dag(validated(post_train.Config, {"rounds": 3, "rollout": rollout}), plan)
    return plan


def of(plan, stage, number):
    return [node for node in plan.nodes.values() if node.stage.name == stage and node.round == number]


def leavers(plan) -> list:
    """The team before the first round, then as each left it."""
    return [of(plan, "base", 0)[0], *(of(plan, "promote", number)[0] for number in (1, 2, 3))]


def test_a_round_is_played_while_the_last_one_trains():
    for overlap in (0, 1):
        plan = planned(overlap=overlap)
        teams = leavers(plan)
        for number in (1, 2, 3):
            spoke, newest = teams[max(0, number - 1 - overlap)], teams[number - 1]
            plays = [node for node in of(plan, "rollout", number) if "validation" not in node.options["seed"]]
            assert {node.inputs["policies"][0].key for node in plays} == {spoke.key}
            (batch,) = of(plan, "batch", number)
            assert batch.inputs["policies"][0].key == spoke.key  # its turns are those that are trained on
            assert {node.inputs["policies"][0].key for node in of(plan, "train", number)} == {newest.key}


def test_without_overlap_nothing_changes():
    assert planned().nodes.keys() == planned(overlap=0).nodes.keys()


@pytest.mark.parametrize("objective, refused", [("reinforce", True), ("grpo", False), ("dpo", False), ("sft", False)])
def test_what_one_policy_behind_has_to_be_corrected_for(objective, refused):
    settings = {"rounds": 2, "rollout": {"overlap": 1}, "objective": {"name": objective}}
    with pytest.raises(MeritError, match="nothing in it corrects that") if refused else nullcontext():
        post_train.dag(validated(post_train.Config, settings), Plan())


def test_reinforce_with_weights_for_who_sampled_may_be_one_policy_behind():
    settings = {"rounds": 2, "rollout": {"overlap": 1}, "objective": {"name": "reinforce", "truncation": 2}}
    assert post_train.dag(validated(post_train.Config, settings), Plan())
