"""How a reward model is asked, and what its replies are worth: hand-worked scores, ensembles, replies that cannot be read."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from apps import scoring
from apps.records import Consult, MeritError, Rate, Rated, Reward, Rewarded, Said
from apps.scoring import Options

logits = st.lists(st.floats(-20, 20), min_size=1, max_size=5)


def said(*texts):
    return [Said(text, 3) for text in texts]


def test_what_is_asked():
    assert scoring.asked("1 + 1?", "2", Options()) == [Reward("Solve: 1 + 1?", ("2",))]
    word = Options(by="word", good="yes", bad="no", prompt="{question} {text}: good?")
    assert scoring.asked("1 + 1?", "2", word) == [Rate("1 + 1? 2: good?", ("yes", "no"))]
    replies = scoring.asked("1 + 1?", "2", Options(by="reply", samples=3))
    assert [q.repeat for q in replies] == [0, 1, 2] and {q.prompt for q in replies} == {"Check: 1 + 1? Solution: 2"}
    assert isinstance(replies[0], Consult) and dict(replies[0].fields)["draft"] == "2"


def test_a_word_is_worth_its_odds():
    found = [Rated((math.log(0.3), math.log(0.1)), 1)]
    assert scoring.score(found, Options(by="word")) == pytest.approx(math.log(3))
    assert scoring.chance(math.log(3)) == pytest.approx(0.75)


def test_a_head_is_read_after_the_last_piece():
    assert scoring.score([Rewarded(((0.5, -2.0),), 9)], Options()) == -2.0


def test_ensembles_by_hand():
    """Rewards 1, 2 and 6: mean 3, variance (4 + 1 + 9)/3."""
    found = [Rewarded(((1.0,), (2.0,), (6.0,)), 9)]
    assert scoring.score(found, Options()) == pytest.approx(3)
    assert scoring.score(found, Options(combine="worst")) == 1
    assert scoring.score(found, Options(combine="cautious", caution=0.3)) == pytest.approx(3 - 0.3 * 14 / 3)


@given(logits)
def test_the_worst_case_is_no_better_than_the_mean_and_members_that_agree_are_one(rewards):
    mean, worst, cautious = (scoring.combined(rewards, Options(combine=c)) for c in ("mean", "worst", "cautious"))
    assert worst <= mean + 1e-9 and cautious <= mean + 1e-9
    alike = [rewards[0]] * 3
    assert {round(scoring.combined(alike, Options(combine=c)), 9) for c in ("mean", "worst", "cautious")} == {
        round(rewards[0], 9)
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Found 4. VERDICT: CORRECT", 1.0),
        ("Found 4. VERDICT: INCORRECT.", 0.0),
        ("Fine, mostly. SCORE: 3, no: SCORE: 7", 0.7),
        ("SCORE: 25", 1.0),
        ("SCORE: -4", 0.0),
        ("VERDICT: CORRECT, I think", None),
        ("", None),
    ],
)
def test_what_a_reply_says(text, expected):
    assert scoring.read(*said(text), Options(by="reply")) == expected


def test_a_word_that_ends_another_is_not_mistaken_for_it():
    assert scoring.read(*said("it is incorrect"), Options(by="reply", good="correct", bad="incorrect")) == 0
    assert scoring.read(*said("it is correct"), Options(by="reply", good="correct", bad="incorrect")) == 1


def test_replies_are_averaged_and_those_without_an_opinion_left_out():
    """Two of three that say anything: (2 + .5)/(3 + 1) = .625; nobody said anything: even odds."""
    found = said("VERDICT: CORRECT", "VERDICT: CORRECT", "VERDICT: INCORRECT", "who knows")
    assert scoring.chance(scoring.score(found, Options(by="reply"))) == pytest.approx(0.625)
    assert scoring.score(said("?", "!"), Options(by="reply")) == 0.0
    low = Options(by="reply", lowest=1, highest=5)
    assert scoring.read(*said("SCORE: 4"), low) == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"by": "word", "prompt": "{question}?"}, "has to be shown the {text}"),
        ({"prompt": "{qestion}"}, "qestion"),
        ({"lowest": 3, "highest": 3}, "lowest has to be below highest"),
        ({"number": "(["}, "no regular expression"),
        ({"number": "[0-9]"}, "with a group"),
        ({"combine": "best"}, "combine"),
    ],
)
def test_settings_that_make_no_sense_are_refused(given, message):
    with pytest.raises(ValidationError, match=message):
        Options(**given)


def test_a_score_that_is_no_number_is_an_error():
    with pytest.raises(MeritError, match="score nan, a number was expected"):
        scoring.score([Rewarded(((math.nan,),), 1)], Options())
