"""One option, or none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.records import MeritError, Task
from apps.reward import multiple_choice
from apps.tasks import multiple_choice as tasks

OPTIONS = multiple_choice.Options()
TASK = Task("t", "?", "B", "t", "test", choices=("5", "15", "red", "dark red", "None of these"))


def parsed(text: str, task: Task = TASK) -> str | None:
    return multiple_choice.verify(task, text, OPTIONS).parsed


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("ANSWER: b", "B"),
        ("ANSWER: (B).", "B"),
        ("ANSWER: B) 15", "B"),
        ("I first thought of A) but ANSWER: B)", "B"),
        (r"\boxed{B}", "B"),
        ("So it is (B).", "B"),
        ("ANSWER: 15", "B"),
        ("ANSWER: 5", "A"),
        ("It must be 15.", "B"),
        ("ANSWER: Dark  Red.", "D"),
        ("ANSWER: none of these", "E"),
        ("ANSWER: A or B", None),
        ("A) or B)", None),
        ("either 5 or 15", None),
        ("it is dark red", None),  # "red" stands in it too
        ("ANSWER: F", None),
        ("ANSWER: 25", None),
        ("2.5 and 15.3", None),
        ("(x) = f(B2)", None),
        ("ANSWER:", None),
        ("", None),
    ],
)
def test_the_letter_that_a_text_chooses(text, letter):
    assert parsed(text) == letter


def test_two_options_with_one_text_cannot_be_chosen_by_it():
    task = Task("t", "?", "A", "t", "test", choices=("7", "7"))
    assert parsed("ANSWER: 7", task) is None and parsed("ANSWER: A", task) == "A"


@given(st.text() | st.text("ABCDE()ANSWER: 15red.{}\\boxed\n"))
def test_no_text_raises(text):
    for words in (text, f"ANSWER: {text}", f"\\boxed{{{text}"):
        verdict = multiple_choice.verify(TASK, words, OPTIONS)
        assert verdict.score == float(verdict.parsed == "B")


@pytest.mark.parametrize(("answer", "choices"), [("F", ("1", "2")), ("", ("1", "2")), ("AB", ("1", "2")), ("A", ())])
def test_a_gold_answer_that_is_no_option_is_an_error(answer, choices):
    task = Task("t", "?", answer, "t", "test", choices=choices)
    with pytest.raises(MeritError, match=f"task t: the gold answer '{answer}' is not the letter"):
        multiple_choice.check_gold(task, OPTIONS)


def test_every_gold_answer_of_aqua_verifies_and_no_other(shared_data):
    for task in tasks.load("test", tasks.Options(path=str(shared_data / "aqua"))):
        multiple_choice.check_gold(task, OPTIONS)
        for letter in "ABCDE":
            for text in (letter, f"ANSWER: {letter}", f"({letter})"):
                assert multiple_choice.verify(task, text, OPTIONS).right == (letter == task.answer)
