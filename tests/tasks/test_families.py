"""The real data sets: every row loads, under stable ids, and splits share nothing."""

from __future__ import annotations

import json

import pytest

from apps.records import MeritError
from apps.tasks import gsm8k, math, multiple_choice

SPLITS = ("train", "validation", "test")


def test_every_row_of_gsm8k_loads_once(shared_data):
    options = gsm8k.Options(path=str(shared_data / "gsm8k"))
    tasks = {split: gsm8k.load(split, options) for split in SPLITS}
    assert len(tasks["test"]) == 1319
    assert len(tasks["train"]) + len(tasks["validation"]) == 7473
    assert 650 < len(tasks["validation"]) < 850  # a tenth, by digest
    everyone = [task for part in tasks.values() for task in part]
    assert len({task.id for task in everyone}) == len({task.question for task in everyone}) == 7473 + 1319


def test_every_row_of_math_loads_with_level_and_subject(shared_data):
    tasks = math.load("test", math.Options(path=str(shared_data / "math")))
    assert len({task.id for task in tasks}) == 5000
    assert {task.level for task in tasks} == {1, 2, 3, 4, 5}
    assert {task.subject for task in tasks} == set(math.SUBJECTS)


def test_math_filters(shared_data):
    options = math.Options(path=str(shared_data / "math"), levels=(5,), subjects=("Geometry", "Algebra"), limit=50)
    tasks = math.load("test", options)
    assert len(tasks) == 50
    assert {(task.level, task.subject) for task in tasks} == {(5, "Geometry"), (5, "Algebra")}


def test_every_row_of_aqua_loads_and_shows_its_options(shared_data):
    tasks = multiple_choice.load("test", multiple_choice.Options(path=str(shared_data / "aqua")))
    assert len({task.id for task in tasks}) == 254
    for task in tasks:
        assert task.answer in "ABCDE" and len(task.choices) == 5
        assert task.question.endswith("\n".join(f"{a}) {text}" for a, text in zip("ABCDE", task.choices, strict=True)))


def test_test_rows_alone_are_cut_only_on_request(shared_data):
    path = str(shared_data / "math")
    with pytest.raises(MeritError, match="no train tasks, only test.*carve=true"):
        math.load("train", math.Options(path=path))
    parts = [math.load(split, math.Options(path=path, carve=True)) for split in SPLITS]
    assert sum(map(len, parts)) == len({task.id for part in parts for task in part}) == 5000
    assert 3800 < len(parts[0]) < 4200


def test_a_row_without_gold_answer_is_refused(tmp_path):
    (tmp_path / "test.jsonl").write_text(json.dumps({"question": "Why?", "answer": "Because."}))
    with pytest.raises(MeritError, match=r"gsm8k: no '#### n' in the answer of 'Why\?'"):
        gsm8k.load("test", gsm8k.Options(path=str(tmp_path)))
    (tmp_path / "test.jsonl").write_text(json.dumps({"problem": "Why?", "solution": "Because.", "level": "Level ?"}))
    with pytest.raises(MeritError, match="boxed"):
        math.load("test", math.Options(path=str(tmp_path)))


def test_misspelt_filters_name_the_nearest(tmp_path):
    with pytest.raises(MeritError, match="did you mean 'Geometry'"):
        math.load("test", math.Options(path=str(tmp_path), subjects=("Geometri",)))
    with pytest.raises(MeritError, match="no level 6"):
        math.load("test", math.Options(path=str(tmp_path), levels=(6,)))
    with pytest.raises(MeritError, match="did you mean 'train'"):
        gsm8k.load("trian", gsm8k.Options(path=str(tmp_path)))


COMMONSENSE = {
    "question": "Where do you find a fox?",
    "question_concept": "fox",
    "choices": {"label": ["A", "B"], "text": ["forest", "library"]},
    "answerKey": "A",
}
AS_FIRST_PUBLISHED = {
    "question": {
        "stem": "Where do you find a fox?",
        "choices": [{"label": "A", "text": "forest"}, {"label": "B", "text": "library"}],
    },
    "answerKey": "A",
}


@pytest.mark.parametrize("row", [COMMONSENSE, AS_FIRST_PUBLISHED])
def test_commonsense_rows(row):
    task = multiple_choice.task(row, "test")
    assert (task.answer, task.choices) == ("A", ("forest", "library"))
    assert task.question == "Where do you find a fox?\nA) forest\nB) library"


def test_rows_whose_answer_is_not_published_are_left_out():
    assert multiple_choice.task(COMMONSENSE | {"answerKey": ""}, "test") is None


def test_an_answer_that_is_no_option_is_refused():
    with pytest.raises(MeritError, match="the answer 'C' of .* is none of A, B"):
        multiple_choice.task(COMMONSENSE | {"answerKey": "C"}, "test")
