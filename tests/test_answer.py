"""Where a text states its answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.answer import after, last_box


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ANSWER: 5", "5"),
        ("ANSWER: 4\nno, ANSWER: 5 \nbye", "5"),
        ("ANSWER:\n\n 5\n6", "5"),
        ("so ANSWER:", ""),
        ("Answer: 5", None),
    ],
)
def test_after(text, words):
    assert after(text) == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (r"\boxed{1} then \boxed{\frac{a}{b}}.", r"\frac{a}{b}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{a \\}", "a \\\\"),
        (r"$\boxed 5$", "5"),
        (r"\fbox{7}", "7"),
        (r"\boxed{7", None),
        (r"\boxed{two" + "\n" + "lines}", "two lines"),
        (r"\boxed", None),
        ("7", None),
    ],
)
def test_last_box(text, words):
    assert last_box(text) == words


@given(st.text(), st.recursive(st.just("x"), lambda inner: inner.map("{{{}}}".format) | inner.map("{}y".format)))
def test_a_box_with_matching_braces_is_found_behind_any_text(before, content):
    assert last_box(f"{before}\\boxed{{{content}}} and more") == content
