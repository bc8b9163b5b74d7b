"""Agents with models of their own: each request goes to its policy's model, in that model's own words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from apps.effects import Ask
from apps.inference.driver import Start, Team, Voice, perform
from apps.inference.engine import Completion, Request
from apps.inference.engines import transformers
from apps.inference.models import Models
from apps.records import Policy, Sampling
from tests import models

TASKS = models.tasks(3)


class Double:
    """Says the name of its model."""

    def __init__(self, model: str) -> None:
        self.model, self.calls = model, []

    def render(self, system, user):
        return f"{self.model}: {user}", models.ids(len(user))

    def completion(self, text):
        return models.ids(len(self.model))

    def generate(self, requests):
        self.calls.append(len(requests))
        return [Completion(f"{self.model} {r.seed}", models.ids(1), np.zeros(1, np.float32), "stop") for r in requests]

    def score(self, policy, sequences):
        return [np.full(1, len(self.model), np.float32) for _ in sequences]


def requests(*folders: str) -> list[Request]:
    return [
        Request(Policy("a", model=folder), "", models.ids(1), Sampling(), seed, TASKS[0], Ask("a", {}))
        for seed, folder in enumerate(folders)
    ]


def test_each_model_is_asked_once_and_answers_come_in_order():
    engine = Models(Double, "home", 3)
    said = engine.generate(requests("x", "", "y", "x", ""))
    assert [one.text for one in said] == ["x 0", "home 1", "y 2", "x 3", "home 4"]
    assert {name: one.calls for name, one in engine.loaded.items()} == {"x": [2], "home": [2], "y": [1]}
    assert engine.render("", "?", Policy("a", model="x"))[0] == "x: ?" and engine.render("", "?")[0] == "home: ?"
    assert engine.score(Policy("a"), [()])[0] == [4] and len(engine.completion("")) == 1


def test_no_more_models_than_there_is_room_for_and_the_last_used_stay():
    opened: list[str] = []
    engine = Models(lambda model: opened.append(model) or Double(model), "home", 2)
    engine.generate(requests("x", "y", "x"))
    assert opened == ["x", "y"] and list(engine.loaded) == ["x", "y"]
    engine.render("", "", Policy("a", model="x"))
    engine.generate(requests("z"))
    assert opened == ["x", "y", "z"] and list(engine.loaded) == ["x", "z"]


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Path:
    """A model with other words: another tokenizer, another chat template, other weights."""
    folder = models.make_model(tmp_path_factory.mktemp("other"), seed=5)
    template = folder / "chat_template.jinja"
    template.write_text("{% for m in messages %}{{ m['content'] }} . {% endfor %}")
    return folder


def opened(model: str):
    return transformers.load(model, transformers.Options(), "cpu")


def test_a_team_of_two_base_models_says_what_each_would_say_alone(tiny_model, other):
    """Text crosses between agents; every prompt is rendered, every turn sampled by the agent's own model."""
    agents = {a: Policy(a) for a in ("solver", "critic", "reviser", "verifier")}
    agents["critic"] = Policy("critic", model=str(other), base=str(other))
    team = Team("solve_critique_revise", {}, models.PROMPTS, agents, Sampling(max_new_tokens=6))
    played = perform([Start(task, "0") for task in TASKS], Voice(team, Models(opened, str(tiny_model), 2), "s"))
    alone = {a: opened(p.model or str(tiny_model)) for a, p in agents.items()}
    turns = [(trace.task, turn) for trace in played for turn in trace.turns]
    assert {turn.agent for _, turn in turns} >= {"solver", "critic"}
    tasks = {task.id: task for task in TASKS}
    for task, turn in turns:
        assert turn.prompt.endswith(" . ") == (turn.agent == "critic")
        assert np.array_equal(turn.prompt_ids, alone[turn.agent].encode(turn.prompt))
        request = Request(
            Policy(turn.agent), turn.prompt, turn.prompt_ids, turn.sampling, turn.seed, tasks[task], Ask(turn.agent, {})
        )
        (said,) = alone[turn.agent].generate([request])
        assert np.array_equal(said.ids, turn.completion_ids) and np.allclose(said.logprobs, turn.logprobs, atol=1e-4)


def test_an_absent_agent_s_stand_in_is_its_own_base_model(tiny_model, other):
    trained = Policy("solver", "digest", model=str(other), base="")
    team = Team("single", {}, {"solver": "Solve: {question}"}, {"solver": trained}, Sampling(max_new_tokens=4))
    engine = Models(opened, str(tiny_model), 2)
    (trace,) = perform([Start(TASKS[0], "0", absent={"solver": "base"})], Voice(team, engine, "s"))
    assert trace.turns[0].policy == "base" and list(engine.loaded) == [str(tiny_model)]
