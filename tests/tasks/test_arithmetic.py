"""The embedded task."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.records import MeritError
from apps.reward import exact_number
from apps.tasks import arithmetic

sizes, seeds = st.integers(1, 60), st.integers(0, 2**31)
shapes = st.builds(
    arithmetic.Options,
    levels=st.lists(st.integers(2, 6), min_size=1, max_size=3).map(tuple),
    train=sizes,
    validation=sizes,
    test=sizes,
    seed=seeds,
)


def numbers(task) -> tuple[str, ...]:
    """The start and the operations, read from the worked solution: "12; +7=19; …" → ("12", "+7", …)."""
    return tuple(step.split("=")[0] for step in task.solution.split(". ANSWER")[0].split("; "))


@settings(max_examples=40, deadline=None)
@given(st.lists(shapes, min_size=2, max_size=3))
def test_splits_never_share_a_problem_whatever_seeds_and_sizes(several):
    problems = {
        split: {numbers(task) for options in several for task in arithmetic.load(split, options)}
        for split in arithmetic.SPLITS
    }
    assert not problems["train"] & problems["validation"]
    assert not problems["train"] & problems["test"]
    assert not problems["validation"] & problems["test"]


@settings(max_examples=20, deadline=None)
@given(shapes, st.sampled_from(arithmetic.SPLITS))
def test_gold_answers_and_solutions_verify_and_sizes_are_as_asked(options, split):
    tasks = arithmetic.load(split, options)
    assert len({task.id for task in tasks}) == getattr(options, split)
    assert {task.level for task in tasks} <= set(options.levels)
    for task in tasks:
        exact_number.check_gold(task, exact_number.Options())
        assert exact_number.verify(task, task.solution, exact_number.Options()).right
        assert not exact_number.verify(task, f"ANSWER: {int(task.answer) + 1}", exact_number.Options()).right


def test_the_same_seed_gives_the_same_tasks():
    options = arithmetic.Options(train=20, seed=7)
    assert arithmetic.load("train", options) == arithmetic.load("train", options)
    assert arithmetic.load("train", options) != arithmetic.load("train", arithmetic.Options(train=20, seed=8))


def test_more_problems_than_there_are_is_a_clear_error():
    with pytest.raises(MeritError, match=r"only \d+ different validation problems of levels \(1,\)"):
        arithmetic.load("validation", arithmetic.Options(levels=(1,), validation=300))
