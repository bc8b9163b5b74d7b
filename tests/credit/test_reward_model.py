"""Credit by a reward model: what it reads of each turn, what a score is worth, ensembles and their spread."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pydantic import ValidationError

from apps import scoring
from apps.credit import reward_model
from apps.records import Rate, Rated, Reward, Rewarded
from apps.reward import reward_model as verifier
from tests.credit.plays import graded, group

GROUP = replace(
    group(graded(["solver", "critic"], 1.0), graded(["solver", "critic", "solver"], 0.0, sample=1)),
    duties={"solver": "solve", "critic": "check"},
)


def run(answer, the_group=GROUP, **options):
    """Drives the method, each question answered by `answer(question)`: (credit, what was asked)."""
    method = reward_model.assign(the_group, reward_model.Options(**options))
    asked = next(method)
    try:
        method.send([answer(question) for question in asked])
    except StopIteration as end:
        return end.value, asked


def lengths(*slopes):
    """Members whose reward is so many times the number of letters."""
    return lambda q: Rewarded(tuple((k * len(q.pieces[0]),) for k in slopes), 9)


def test_every_agent_is_scored_after_its_own_prompt():
    credit, asked = run(lengths(1.0), shift=2.0)
    turns = [turn for g in GROUP.graded for turn in g.trace.turns]
    assert set(asked) == {Reward(t.prompt, (t.text,), rendered=True) for t in turns}
    assert [v for c in credit for v in c.values] == [len(t.text) - 2.0 for t in turns]
    assert all(e == 0 for c in credit for e in c.errors)
    (second,) = credit[1:]
    assert second.agents["solver"] == pytest.approx(second.values[0] + second.values[2])


def test_what_is_said_twice_is_asked_once():
    same = group(GROUP.graded[0], graded(["solver", "critic"], 0.0, sample=1))
    twice = replace(same, graded=(same.graded[0], replace(same.graded[1], trace=same.graded[0].trace)))
    assert len(run(lengths(1.0), twice)[1]) == 2


def test_an_ensemble_is_combined_and_its_spread_is_the_error():
    """Rewards L and 3 L: mean 2 L, standard deviation L; the worst is L."""
    credit, _ = run(lengths(1.0, 3.0))
    size = [len(t.text) for t in GROUP.graded[0].trace.turns]
    assert credit[0].values == pytest.approx([2 * n for n in size]) and credit[0].errors == pytest.approx(size)
    worst, _ = run(lengths(1.0, 3.0), combine="worst")
    assert worst[0].values == pytest.approx(size)


def test_squashed_rewards_are_probabilities():
    credit, _ = run(lambda q: Rewarded(((1.5,),), 9), squash=True, shift=1.5)
    assert {v for c in credit for v in c.values} == {0.5}


def test_a_generative_model_reads_question_and_answer_and_checks_carry_none():
    credit, asked = run(lambda q: Rated((-1.0, -1.0), 9), by="word")
    assert all(isinstance(q, Rate) and GROUP.task.question in q.prompt for q in asked)
    for given, g in zip(credit, GROUP.graded, strict=True):
        expected = [0.0 if t.agent == "critic" else 0.5 for t in g.trace.turns]
        assert list(given.values) == expected
        assert "no answer to score" in given.notes[1]
    by_question, asked = run(lengths(1.0), prompt="Solve: {question}")
    assert {q.prompt for q in asked} == {f"Solve: {GROUP.task.question}"} and by_question[0].values[1] == 0


def test_a_model_of_its_own_needs_a_prompt_of_its_own():
    with pytest.raises(ValidationError, match="give prompt, with {question}"):
        reward_model.Options(model="elsewhere")
    assert reward_model.Options(model="elsewhere", prompt="{question}").by == "head"


def test_a_verdict_by_hand():
    options = verifier.Options(shift=1.0)
    found = verifier.verdict("2 * 3 = 6. ANSWER: 6", [Rewarded(((1.0,),), 9)], options)
    assert found.score == 0.5 and found.right and found.parsed == "6"
    assert verifier.verdict("", [Rewarded(((-30.0,),), 9)], options).parsed is None
    low = verifier.verdict("no idea", [Rewarded(((0.0,),), 9)], options)
    assert low.score == pytest.approx(scoring.chance(-1.0)) and not low.right and low.parsed == "no idea"
