"""A reward model's credit: hand-worked scores, progress that adds up, and what the model reads."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.credit import process_reward
from apps.records import Rate, Rated, Rewarded
from tests.credit.plays import graded, group

OPTIONS = process_reward.Options()
GROUP = replace(
    group(graded(["solver", "critic"], 1.0), graded(["solver", "critic", "solver"], 0.0, sample=1)),
    duties={"solver": "solve", "critic": "check"},
)
odds = st.floats(-30, 30)


def run(the_group, nats, **options):
    """Drives the method, each prompt rated by `nats(prompt)`."""
    method = process_reward.assign(the_group, process_reward.Options(**options))
    asked = next(method)
    try:
        method.send([Rated(nats(q.prompt), 9) for q in asked])
    except StopIteration as end:
        return end.value, asked


def test_the_score_is_the_softmax_of_two_labels():
    assert process_reward.score(Rated((math.log(0.3), math.log(0.1)), 1)) == pytest.approx(0.75)
    assert process_reward.score(Rated((-2.0, -2.0), 1)) == 0.5
    assert process_reward.score(Rated((-2000.0, 0.0), 1)) == pytest.approx(0)
    assert process_reward.score(Rated((0.0, -2000.0), 1)) == 1


def test_values_by_hand():
    assert process_reward.values([0.5, 0.75, 0.25], True) == [0.25, -0.5]
    assert process_reward.values([0.5, 0.75, 0.25], False) == [0.5, -0.5]
    assert process_reward.values([0.5], True) == []


@given(st.lists(odds, min_size=4, max_size=4))
def test_progress_adds_up_to_what_the_team_gained(given_odds):
    prompts = {}

    def nats(prompt):
        return (given_odds[prompts.setdefault(prompt, len(prompts))], 0.0)

    credit, asked = run(GROUP, nats)
    first, last = (1 / (1 + math.exp(-given_odds[place])) for place in (0, 3))
    assert len(asked) == 4 and sum(credit[1].values) == pytest.approx(last - first)
    assert sum(credit[1].agents.values()) == pytest.approx(sum(credit[1].values))


def test_what_the_model_reads():
    _, asked = run(GROUP, lambda prompt: (0.0, 0.0))
    assert asked == [
        Rate(f"Check: ?{steps}", ("VERDICT: CORRECT", "VERDICT: INCORRECT"))
        for steps in (
            "",
            " Solution: solver 0",
            " Solution: solver 0 Critique: critic 0",
            " Solution: solver 0 Critique: critic 0 Solution: solver 1",
        )
    ]  # what two traces have in common is asked once


def test_the_good_label_is_the_first():
    (credit, _), _ = run(GROUP, lambda prompt: (0.0, -3.0) if "solver" in prompt else (-3.0, 0.0))
    low, high = 1 / (1 + math.exp(3)), 1 / (1 + math.exp(-3))
    assert credit.values == pytest.approx((high - low, 0))
    assert "from 0.05 to 0.95" in credit.notes[0]
    (credit, _), _ = run(GROUP, lambda prompt: (0.0, -3.0), delta=False)
    assert credit.values == pytest.approx((2 * high - 1,) * 2)


def test_a_scalar_head_reads_a_play_once():
    """Logits 0, 1, −1 after the opening and two turns: progress σ(1) − .5 and σ(−1) − σ(1)."""
    method = process_reward.assign(GROUP, process_reward.Options(by="head"))
    asked = next(method)
    assert len(asked) == 2 and [len(q.pieces) for q in asked] == [3, 4]
    assert asked[0].pieces[0] == "Solution:" and asked[0].pieces[2].startswith(" Critique: ")
    logits = {3: (0.0, 1.0, -1.0), 4: (0.0, 1.0, -1.0, 2.0)}
    replies = [Rewarded((logits[len(q.pieces)], logits[len(q.pieces)]), 9) for q in asked]
    with pytest.raises(StopIteration) as end:
        method.send(replies)
    up = 1 / (1 + math.exp(-1))
    assert end.value.value[0].values == pytest.approx((up - 0.5, 1 - 2 * up))


def test_logits_of_an_ensemble_are_averaged():
    assert process_reward.read(Rewarded(((1.0, 5.0), (3.0, -5.0)), 9)) == pytest.approx([1 / (1 + math.exp(-2)), 0.5])
