"""Numbers, compared exactly."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.records import MeritError, Task
from apps.reward import exact_number
from apps.tasks import gsm8k

OPTIONS = exact_number.Options()


def gold(answer: str) -> Task:
    return Task("t", "?", answer, "t", "test")


def score(answer: str, text: str, options=OPTIONS) -> float | None:
    """The score, None where the text could not be parsed."""
    verdict = exact_number.verify(gold(answer), text, options)
    return None if verdict.parsed is None else verdict.score


@pytest.mark.parametrize(
    "text",
    [
        "1234",
        "ANSWER: 1234",
        "ANSWER: 1,234.",
        "ANSWER: $1,234.00",
        "ANSWER:\n 1234 %\nThank you",
        "ANSWER: 7. No. ANSWER: 1234",
        "#### 1\n#### 1,234",
        r"It is \boxed{1{,}} or \boxed{1234}.",
        "ANSWER: 2468/2",
        " $ 1234 ",
    ],
)
def test_right_forms(text):
    assert score("1234", text) == 1


@pytest.mark.parametrize(
    "text",
    [
        "ANSWER: 1234 coins",
        "ANSWER: about 1234",
        "1234\nANSWER: unknown",  # the marker decides
        "ANSWER: 1233 + 1",
        "ANSWER: 12,34",
        "ANSWER: 1234/0",
        "ANSWER: 1.234e3",
        "ANSWER: 10**400",
        "ANSWER: --1234",
        "ANSWER: NaN",
        "ANSWER: inf",
        "ANSWER: .",
        "ANSWER: ١٢٣٤",  # digits of another script
        "ANSWER: " + "9" * 100_000,
        "It is 1234",
        "",
    ],
)
def test_what_is_no_number_is_not_parsed(text):
    assert score("1234", text) is None


@pytest.mark.parametrize("text", ["ANSWER: 12340", "ANSWER: 234", "ANSWER: -1234", "ANSWER: 1234.0001"])
def test_other_numbers_are_wrong(text):
    assert score("1234", text) == 0


def test_decimals_are_exact():
    assert score("0.3", "ANSWER: 0.30") == score("0.3", "ANSWER: 3/10") == score("-.5", "ANSWER: −$0.5") == 1
    assert score("0.3", "ANSWER: 0.30000000000000004") == 0
    assert score("12345678901234567891", "ANSWER: 12345678901234567890") == 0


def test_tolerance_is_an_absolute_difference():
    near = exact_number.Options(tolerance=0.1)
    assert [score("3", f"ANSWER: {x}", near) for x in ("3.1", "2.9", "3.11")] == [1, 1, 0]


@given(st.integers(-(10**30), 10**30), st.integers(0, 6))
def test_a_number_is_what_it_was_written_as(number, places):
    value = Fraction(number, 10**places)
    sign, digits = "-" * (number < 0), str(abs(number)).rjust(places + 1, "0")
    plain = f"{sign}{digits[: len(digits) - places]}.{digits[len(digits) - places :]}" if places else f"{sign}{digits}"
    assert exact_number.parse(plain) == value
    assert exact_number.parse(f"{number:,}") == number
    assert exact_number.parse(str(value)) == value


@given(st.text() | st.text("0123456789.,-+$%/ANSWER:# {}\\boxed\n"))
def test_no_text_raises(text):
    for words in (text, f"ANSWER: {text}", f"\\boxed{{{text}"):
        verdict = exact_number.verify(gold("7"), words, OPTIONS)
        assert verdict.score in (0, 1) and (verdict.parsed is not None or verdict.score == 0)


@pytest.mark.parametrize("answer", ["", "seven", "1/0", "ANSWER: seven", "1 234"])
def test_a_gold_answer_that_is_no_number_is_an_error(answer):
    for grade in (exact_number.check_gold, lambda task, options: exact_number.verify(task, "ANSWER: 1", options)):
        with pytest.raises(MeritError, match=f"task t: the gold answer '{answer}' is not a number"):
            grade(gold(answer), OPTIONS)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_every_gold_answer_and_solution_of_gsm8k_verifies(shared_data, split):
    for task in gsm8k.load(split, gsm8k.Options(path=str(shared_data / "gsm8k"))):
        exact_number.check_gold(task, OPTIONS)
        for text in (task.answer, f"ANSWER: {task.answer}", task.solution):
            assert exact_number.verify(task, text, OPTIONS).right, (task.id, text)
        other = exact_number.parse(task.answer) + 1
        assert not exact_number.verify(task, f"ANSWER: {other}", OPTIONS).right
