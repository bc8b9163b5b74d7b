"""Task families of the reasoning-gym library, with its own scorers."""

from __future__ import annotations

import pytest

from apps.records import MeritError
from apps.reward import reasoning_gym as scorer
from apps.tasks import reasoning_gym

pytest.importorskip("reasoning_gym", reason="an extra: pip install 'merit[tasks]'")
OPTIONS = scorer.Options()


def small(dataset: str, **given) -> reasoning_gym.Options:
    return reasoning_gym.Options(dataset=dataset, train=30, validation=10, test=10, **given)


@pytest.mark.parametrize("seed", [0, 1])
def test_splits_share_no_question_even_where_a_family_has_few(seed):
    options = small(
        "basic_arithmetic", seed=seed, config={"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
    )
    parts = {split: {task.question for task in reasoning_gym.load(split, options)} for split in reasoning_gym.SPLITS}
    assert [len(parts[split]) for split in ("train", "validation", "test")] == [30, 10, 10]
    assert len(set().union(*parts.values())) == 50


def test_a_larger_train_split_leaves_the_test_split_as_it_was():
    before, after = small("countdown"), small("countdown").model_copy(update={"train": 100})
    assert reasoning_gym.load("test", before) == reasoning_gym.load("test", after)


@pytest.mark.parametrize("dataset", ["countdown", "arc_agi", "mini_sudoku", "graph_color", "zebra_puzzles"])
def test_gold_answers_are_right_by_the_librarys_own_scorer(dataset):
    tasks = reasoning_gym.load("test", reasoning_gym.Options(dataset=dataset, train=1, validation=1, test=3))
    for task in tasks:
        scorer.check_gold(task, OPTIONS)
        if task.answer:
            assert scorer.verify(task, f"So it is.\nANSWER: {task.answer}", OPTIONS).right
        assert not scorer.verify(task, "ANSWER: nonsense", OPTIONS).right


def test_countdown_takes_any_expression_that_reaches_the_target():
    task = reasoning_gym.load("test", small("countdown"))[0]
    assert scorer.verify(task, f"ANSWER: ({task.answer})", OPTIONS).score == 1
    assert not scorer.verify(task, "ANSWER: 1 + 1", OPTIONS).right


@pytest.mark.parametrize(
    "text", ["ANSWER: exec('1')", "ANSWER: (1).__class__", "ANSWER: " + "9" * 30_000, "", "ANSWER:"]
)
def test_programs_and_floods_are_not_scored(text):
    task = reasoning_gym.load("test", small("countdown"))[0]
    assert scorer.verify(task, text, OPTIONS).parsed is None


def test_a_wrong_gold_answer_is_an_error():
    from dataclasses import replace

    task = replace(reasoning_gym.load("test", small("countdown"))[0], answer="1 + 1")
    with pytest.raises(MeritError, match="'1 \\+ 1' is not right"):
        scorer.check_gold(task, OPTIONS)


def test_wrong_names_and_settings_are_named():
    with pytest.raises(MeritError, match="did you mean 'countdown'"):
        reasoning_gym.load("test", small("countdwn"))
    with pytest.raises(MeritError, match="min_numbrs"):
        reasoning_gym.load("test", small("countdown", config={"min_numbrs": 3}))
    tiny = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1, "operators": ["+"]}
    with pytest.raises(MeritError, match="only .* different train questions"):
        reasoning_gym.load("train", reasoning_gym.Options(dataset="basic_arithmetic", train=9000, config=tiny))
