"""A teacher's plays told again: the same texts at the same places, under the pupil's prompts, in the pupil's tokens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from apps.inference import driver
from apps.inference.engines import transformers
from apps.inference.models import Models
from apps.inference.retell import retold
from apps.records import MeritError, Policy, Sampling
from tests import models

ROLES = tuple(models.PROMPTS)


@pytest.fixture(scope="module")
def engine(tiny_model):
    return Models(lambda folder: transformers.load(folder, transformers.Options(), "cpu"), str(tiny_model))


def team(prompts=None) -> driver.Team:
    policies = {role: Policy(role) for role in ROLES}
    prompts = {**models.PROMPTS, **(prompts or {})}
    return driver.Team("solve_critique_revise", {}, prompts, policies, Sampling(max_new_tokens=6))


@pytest.fixture(scope="module")
def played(engine):
    starts = [driver.Start(task, "0") for task in models.tasks(3)]
    return list(zip(models.tasks(3), driver.perform(starts, driver.Voice(team(), engine, "seed")), strict=True))


def test_own_plays_told_again_are_the_same_plays(engine, played):
    for task, trace in played:
        told = retold(trace, task, team(), engine, {})
        assert (told.id, told.answer, told.converged) == (trace.id, trace.answer, trace.converged)
        for new, old in zip(told.turns, trace.turns, strict=True):
            assert (new.path, new.agent, new.text, new.prompt, new.policy) == (
                old.path, old.agent, old.text, old.prompt, old.policy,
            )  # fmt: skip
            assert np.array_equal(new.prompt_ids, old.prompt_ids) and np.isnan(new.logprobs).all()
            assert len(new.logprobs) == len(new.completion_ids)


def test_the_prompts_are_the_pupils_and_carry_the_teachers_words(engine, played):
    task, trace = played[0]
    told = retold(trace, task, team({"solver": "ANSWER {question}", "critic": "VERDICT {draft}"}), engine, {})
    assert "ANSWER " + task.question in told.turns[0].prompt and told.turns[0].prompt != trace.turns[0].prompt
    assert "VERDICT " + trace.turns[0].text in told.turns[1].prompt


def test_a_whole_text_ends_with_the_end_token_and_a_cut_one_does_not(engine, played):
    task, trace = played[0]
    end = engine.engine("").tokenizer.eos_token_id
    for finish, closed in (("stop", True), ("length", False)):
        turns = tuple(replace(turn, finish=finish) for turn in trace.turns)
        told = retold(replace(trace, turns=turns), task, team(), engine, {})
        assert {bool(turn.completion_ids[-1] == end) for turn in told.turns if turn.text} == {closed}


def test_turns_that_traces_share_stay_shared(engine, played):
    task, trace = played[0]
    known: dict = {}
    first, second = (retold(replace(trace, sample=s), task, team(), engine, known) for s in "01")
    assert all(a is b for a, b in zip(first.turns, second.turns, strict=True))


def test_a_play_of_another_topology_is_refused(engine, played):
    task, trace = played[0]
    with pytest.raises(MeritError, match="has no turn critic.0; was its topology another one?"):
        retold(replace(trace, turns=trace.turns[:1]), task, team(), engine, {})
