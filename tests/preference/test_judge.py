"""A judge by a constitution: what it is shown, both orders, labels, one answer at a time."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from apps.preference import judge
from apps.preference.judge import Options
from apps.preference.pairs import Pair
from apps.records import Consult, MeritError, Rate, Rated, Said

PAIR = Pair("<|user|>1 + 1?", "two", "three", True, "1 + 1?")
RULES = ["Be right.", "Be brief."]


def odds(*logits):
    return [Rated((logit, 0.0), 1) for logit in logits]


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def test_both_orders_are_shown_with_all_principles():
    ahead, behind = judge.questions(PAIR, RULES, Options())
    assert isinstance(ahead, Rate) and ahead.texts == ("1", "2")
    for asked, first, second in ((ahead, "two", "three"), (behind, "three", "two")):
        assert "- Be right.\n- Be brief." in asked.prompt and "Task: 1 + 1?" in asked.prompt
        assert asked.prompt.index(f"Answer 1: {first}") < asked.prompt.index(f"Answer 2: {second}")


def test_a_place_that_is_favoured_cancels_out():
    """The judge likes the first place by 2 nats and the first answer by 1: σ(3) and 1 − σ(1); without the liking σ(1)."""
    ahead, behind = judge.preferences(odds(2 + 1, 2 - 1), Options())
    assert (ahead, behind) == (pytest.approx(sigmoid(3)), pytest.approx(1 - sigmoid(1)))
    assert judge.preferences(odds(2, 2), Options()) == (pytest.approx(sigmoid(2)), pytest.approx(1 - sigmoid(2)))
    assert sum(judge.preferences(odds(2, 2), Options())) / 2 == pytest.approx(0.5)


def test_replies_that_end_in_a_label_are_counted():
    options = Options(by="reply", samples=3)
    asked = judge.questions(PAIR, RULES, options)
    assert [q.repeat for q in asked] == [0, 1, 2] * 2 and all(isinstance(q, Consult) for q in asked)
    assert 'end with "BETTER: 1"' in asked[0].prompt
    said = ["so BETTER: 1", "BETTER: 2.", "hm", "BETTER: 2", "BETTER: 2", "SCORE: 9"]
    assert judge.preferences([Said(text, 1) for text in said], options) == (0.5, 1.0)
    assert judge.preferences([Said("?", 1)] * 6, options) == (0.5, 0.5)


def test_an_answer_at_a_time():
    options = Options(prompt="Check: {question} Solution: {text}")
    first, second = judge.questions(PAIR, RULES, options)
    assert first == Rate("Check: 1 + 1? Solution: two", ("VERDICT: CORRECT", "VERDICT: INCORRECT"))
    assert "three" in second.prompt
    assert judge.preferences(odds(2.0, 0.5), options) == (pytest.approx(sigmoid(1.5)),) * 2


def test_one_principle_is_drawn_for_each_pair():
    options = Options(principles="one")
    shown = []
    for number in range(60):
        ahead, behind = judge.questions(Pair("p", "a", str(number), question="q"), RULES, options)
        told = [rule in ahead.prompt for rule in RULES]
        assert sum(told) == 1 and told == [rule in behind.prompt for rule in RULES]
        shown.append(told[0])
    assert 15 < sum(shown) < 45


def test_the_default_constitution_and_a_file_of_ones_own(tmp_path):
    assert len(judge.read_principles("")) >= 5
    (tmp_path / "mine.md").write_text("# Mine\n\n- One.\ntext\n- Two.\n")
    assert judge.read_principles(str(tmp_path / "mine.md")) == ["One.", "Two."]
    (tmp_path / "none.md").write_text("no dash")
    for name, message in (("none.md", "no principle in it"), ("nowhere.md", "there is no such file")):
        with pytest.raises(MeritError, match=message):
            judge.read_principles(str(tmp_path / name))


@pytest.mark.parametrize("prompt", ["{first} alone", "{frist} {second}"])
def test_a_judge_that_sees_half_is_refused(prompt):
    with pytest.raises(ValidationError):
        Options(prompt=prompt)
