"""The model that comes with the project: what its folder promises. What it can do is in its card, measured by its own DAG."""

from __future__ import annotations

from pathlib import Path

import pytest

from apps.effects import Ask
from apps.inference.engine import Request
from apps.inference.engines import transformers
from apps.records import Policy, Sampling, Task
from apps.tasks import arithmetic
from apps.topologies import solve_critique_revise
from workflows import model

FOLDER = model.EMBEDDED


@pytest.fixture(scope="module")
def engine():
    return transformers.load(str(FOLDER), transformers.Options(), "cpu")


def test_it_is_small_and_safe():
    assert sum(f.stat().st_size for f in FOLDER.iterdir()) < 8e6
    assert not [f.name for f in FOLDER.iterdir() if f.suffix in (".bin", ".pt", ".pkl")]
    assert "Accuracy by role" in (FOLDER / "README.md").read_text()


def test_it_is_a_llama_of_about_a_million_parameters(engine):
    assert engine.model.config.model_type == "llama"
    assert 5e5 < sum(p.numel() for p in engine.model.parameters()) < 2e6


def test_every_task_is_in_its_words_and_digits_stand_singly(engine):
    unknown = engine.tokenizer.unk_token_id
    for task in arithmetic.load("test", arithmetic.Options(test=200)):
        text, ids = engine.render("", f"Solve: {task.question}")
        assert unknown not in ids and engine.tokenizer.decode(ids) == text
        assert not any(
            sum(letter.isdigit() for letter in piece) > 1 for piece in engine.tokenizer.convert_ids_to_tokens(ids)
        )


def says(engine, role: str, fields: dict[str, str], opening: str) -> list[str]:
    """What a role says after an opening, greedily, to each of the fields."""
    prompt, _ = engine.render("", solve_critique_revise.PROMPTS[role].format(**fields))
    task = Task("t", "", "", "arithmetic", "test")
    request = Request(Policy(role), prompt, engine.encode(prompt + opening), Sampling(0.0), 0, task, Ask(role, fields))
    return engine.generate([request])[0].text


def test_it_can_work_and_it_would_rather_guess(engine):
    tasks = arithmetic.load("test", arithmetic.Options(test=40, levels=(3,)))
    careful = [says(engine, "solver", {"question": t.question}, t.solution.split(";")[0]) for t in tasks]
    habit = [says(engine, "solver", {"question": t.question}, "") for t in tasks]
    assert sum(text.endswith(f"ANSWER: {t.answer}") for text, t in zip(careful, tasks, strict=True)) >= 36
    assert all(text.startswith("ANSWER:") for text in habit)
    assert sum(text == f"ANSWER: {t.answer}" for text, t in zip(habit, tasks, strict=True)) <= 10


def test_its_critic_can_tell_a_right_draft_from_a_wrong_one(engine):
    tasks = arithmetic.load("test", arithmetic.Options(test=20, levels=(3,)))
    for right in (True, False):
        said = [
            says(
                engine, "critic", {"question": t.question, "draft": f"ANSWER: {int(t.answer) + (not right)}"}, "Check:"
            )
            for t in tasks
        ]
        assert sum(text.endswith("VERDICT: CORRECT") == right for text in said) >= 17


def test_the_folder_travels_with_the_package():
    assert FOLDER.is_relative_to(Path(model.__file__).parents[1] / "apps")
