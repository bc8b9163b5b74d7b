"""Mathematical expressions, compared symbolically in a bounded helper process."""

from __future__ import annotations

import os
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from itertools import pairwise
from multiprocessing import get_context

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.records import MeritError, Task
from apps.reward import aside, math
from apps.tasks import math as tasks

OPTIONS = math.Options()


def gold(answer: str) -> Task:
    return Task("t", "?", answer, "t", "test")


def score(answer: str, text: str) -> float | None:
    """The score, None where the text could not be parsed."""
    verdict = math.verify(gold(answer), text, OPTIONS)
    return None if verdict.parsed is None else verdict.score


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (r"\frac{1}{2}", "ANSWER: 0.5"),
        (r"\frac{1}{2}", r"so \boxed{\dfrac12}"),
        ("x+1", r"\boxed{1 + x}"),
        ("(x+1)^2", r"first \boxed{3}, then \boxed{x^2+2x+1}."),
        (r"\sqrt{8}", r"ANSWER: $2\sqrt{2}$."),
        ("5", "ANSWER: x = 5"),
        (r"\left(1, 2\right)", r"\boxed{(1,2)}"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\boxed{\begin{pmatrix}1\\2\end{pmatrix}}"),
        (r"\text{Evelyn}", "ANSWER: Evelyn"),
        ("6", "6"),
    ],
)
def test_equal_expressions_are_right(answer, text):
    assert score(answer, text) == 1


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("2", "ANSWER: 3"),
        ("2", "ANSWER: 1, 2, 3"),
        ("2", r"\boxed{2} or rather \boxed{3}"),
        ("x+1", r"\boxed{x-1}"),
        ("(1,2)", r"\boxed{(2,1)}"),
        (r"\text{Evelyn}", "ANSWER: Angela"),
    ],
)
def test_other_expressions_are_wrong(answer, text):
    assert score(answer, text) == 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I think that it is 2",
        r"\boxed{2",
        r"ANSWER: 5}\boxed{2",
        "ANSWER: 1$ or $2",
        "ANSWER: " + "(" * 300 + "2" + ")" * 300,
        "ANSWER:" + "2+" * 10_000 + "2",
    ],
)
def test_what_is_no_single_expression_is_not_parsed(text):
    assert score("2", text) in (None, 0)


def test_a_bomb_is_ended_and_the_next_answer_graded():
    began = time.process_time()
    verdict = math.verify(gold("2"), "ANSWER: 9^{9^{9^{9}}}", OPTIONS)
    assert verdict.parsed is None and f"more than {aside.CPU_S} s of processor time" in verdict.reason
    assert time.process_time() - began < 1  # whoever asks only waits
    assert score("2", r"ANSWER: \frac{4}{2}") == 1


def test_threads_share_the_helper():
    with ThreadPoolExecutor(8) as pool:
        scores = list(pool.map(lambda n: score(str(n % 5), r"ANSWER: \frac{6}{2}"), range(40)))
    assert scores == [float(n % 5 == 3) for n in range(40)]


def process_and_score(n: int) -> tuple[int, float | None]:
    return os.getpid(), score(str(n), r"ANSWER: \frac{6}{2}")


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_processes_have_helpers_of_their_own(method):
    assert score("3", r"ANSWER: \frac{6}{2}") == 1  # this process has one before it forks
    with ProcessPoolExecutor(2, mp_context=get_context(method)) as pool:
        done = list(pool.map(process_and_score, range(6)))
    assert [value for _, value in done] == [0, 0, 0, 1, 0, 0]
    assert os.getpid() not in {process for process, _ in done}


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60) | st.text("0123456789^!{}()[]\\fracsqrt+-*/=<>,.x$ ", max_size=24))
def test_no_text_raises(text):
    for words in (f"ANSWER: {text}", f"\\boxed{{{text}}}"):
        verdict = math.verify(gold("7"), words, OPTIONS)
        assert verdict.score in (0, 1) and (verdict.parsed is not None or verdict.score == 0)


@pytest.mark.parametrize("answer", ["", " $ $ ", "{", "the answer is seven", "1" * 500, r"\frac{1}{2$"])
def test_a_gold_answer_that_cannot_be_graded_is_an_error(answer):
    with pytest.raises(MeritError, match="task t, verifier math: the gold answer"):
        math.check_gold(gold(answer), OPTIONS)


def test_every_gold_answer_of_math_verifies_and_two_need_their_text(shared_data):
    by_text = set()
    for task in tasks.load("test", tasks.Options(path=str(shared_data / "math"))):
        math.check_gold(task, OPTIONS)
        for text in (task.answer, f"ANSWER: {task.answer}", task.solution):
            assert math.verify(task, text, OPTIONS).right, (task.id, text)
        if not aside.call("apps.reward.math:equal", task.answer, task.answer)[0]:
            by_text.add(task.answer)
    assert by_text == {r"\frac{12}{5,\!525}", r"\frac \pi4 + 2 - \sqrt2"}


def test_neighbouring_gold_answers_of_math_are_told_apart(shared_data):
    """Different answers must not verify: those that do, out of 300 pairs, are equal in truth."""
    some = tasks.load("test", tasks.Options(path=str(shared_data / "math"), limit=301))
    same = [
        (one.answer, other.answer)
        for one, other in pairwise(some)
        if math.verify(one, f"ANSWER: {other.answer}", OPTIONS).right
    ]
    assert all(math.normalised(one) == math.normalised(other) for one, other in same), same
