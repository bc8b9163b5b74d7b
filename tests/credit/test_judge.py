"""A judge of turns: what it is asked, how its replies count, and what it is worth where the truth is known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from apps.credit import app, calibration, judge
from apps.credit.calibration import Calibration
from apps.records import Consult, MeritError, Said
from tests.credit.plays import graded, group

DUTIES = {"solver": "solve", "critic": "check", "reviser": "revise"}
YES, NO = "VERDICT: CORRECT", "VERDICT: INCORRECT"
MEASURED = Calibration(sensitivity=0.9, specificity=0.8, prevalence=0.3, right=100, wrong=100)


def played(critic=NO, marks=(False, None, True)):
    """A wrong draft, a check of it, a right revision."""
    member = graded(["solver", "critic", "reviser"], 1.0, marks)
    texts = ("ANSWER: 41", critic, "ANSWER: 42")
    turns = tuple(replace(turn, text=text) for turn, text in zip(member.trace.turns, texts, strict=True))
    return replace(group(replace(member, trace=replace(member.trace, turns=turns))), duties=DUTIES)


def run(method, reply):
    """Drives a method, each question answered by `reply(prompt, repeat)`; what it returns, and what it asked."""
    asked, sent = [], None
    try:
        while True:
            wanted = method.send(sent)
            asked += wanted
            sent = [Said(reply(q.prompt, q.repeat), 3) for q in wanted]
    except StopIteration as end:
        return end.value, asked


def honest(prompt, repeat):
    return YES if "42" in prompt else NO


def test_a_perfect_judge_at_its_word():
    """The draft is wrong, the check of it is true, the revision is right; a check costs no question of its own."""
    (credit,), asked = run(judge.assign(played(), judge.Options(repeats=3)), honest)
    assert credit.values == (-1.0, 1.0, 1.0)
    assert credit.agents == {"solver": -1.0, "critic": 1.0, "reviser": 1.0}
    assert len(asked) == 2 * 3 and {q.repeat for q in asked} == {0, 1, 2}
    assert {q.prompt for q in asked} == {"Check: ? Solution: ANSWER: 41", "Check: ? Solution: ANSWER: 42"}
    assert dict(asked[0].fields) == {"question": "?", "draft": "ANSWER: 41"}
    (waved_through,), _ = run(judge.assign(played(critic=YES), judge.Options()), honest)
    assert waved_through.values == (-1.0, -1.0, 1.0)


def test_a_check_without_a_verdict_is_wrong_whatever_the_judge_says():
    (credit,), _ = run(judge.assign(played(critic="Hm."), judge.Options()), honest)
    assert credit.values[1] == -1.0 and "gave no verdict" in credit.notes[1]


def test_values_by_hand_with_a_calibrated_judge():
    """Predictive values 27/41 of a "right" and 3/59 of a "wrong" (see test_calibration); the check is right if the draft is not."""
    (credit,), _ = run(judge.assign(played(), judge.Options(repeats=1, calibration=MEASURED)), honest)
    assert credit.values == pytest.approx((2 * 3 / 59 - 1, 1 - 2 * 3 / 59, 2 * 27 / 41 - 1))
    assert credit.errors[:2] == pytest.approx((2 * calibration.spread(0, 1, MEASURED),) * 2) and min(credit.errors) > 0
    assert credit.agent_errors["critic"] == pytest.approx(credit.errors[1])


def test_replies_that_cannot_be_read_are_no_opinion():
    options = judge.Options(repeats=4)
    (credit,), _ = run(judge.assign(played(), options), lambda prompt, repeat: YES if repeat == 0 else "Well…")
    assert credit.values[0] == 1.0 and "3 replies could not be read" in credit.notes[0]
    (mute,), _ = run(judge.assign(played(), options), lambda prompt, repeat: "Well…")
    assert mute.values == (0.0,) * 3 and mute.errors == (1.0,) * 3 and "no opinion" in mute.notes[0]


@pytest.mark.parametrize(
    ("reply", "means"),
    [(YES, True), (NO, False), (f"So: {NO}.\n", False), ("CORRECT", None), (f"{YES}, or not", None), ("", None)],
)
def test_only_the_end_of_a_reply_counts(reply, means):
    assert judge.opinion(reply, judge.Options()) is means


def test_a_prompt_that_shows_the_turn_asks_about_every_turn():
    options = judge.Options(prompt="rubric", repeats=1)
    (credit,), asked = run(
        judge.assign(played(), options), lambda prompt, repeat: NO if "by the critic" in prompt else YES
    )
    assert credit.values == (1.0, -1.0, 1.0) and len(asked) == 3
    assert "solver: ANSWER: 41\n" in asked[1].prompt and "solver: ANSWER: 41" not in asked[0].prompt
    assert dict(asked[1].fields) == {
        "question": "?", "transcript": "solver: ANSWER: 41", "agent": "critic", "turn": NO, "draft": "ANSWER: 41",
    }  # fmt: skip


def test_the_tally_counts_each_case_once_with_its_truth():
    tally, _ = run(judge.tally(played(), judge.Options(repeats=2)), honest)
    assert tally == {(0, 2, False): 1, (2, 2, True): 1}
    tally, _ = run(judge.tally(played(marks=(None, None, True)), judge.Options(repeats=2)), honest)
    assert tally == {(0, 2, None): 1, (2, 2, True): 1}
    rubric = judge.Options(prompt="rubric", repeats=1)
    tally, _ = run(judge.tally(played(), rubric), lambda prompt, repeat: YES)
    assert tally == {(1, 1, False): 1, (1, 1, True): 2}  # the check of a wrong draft was true
    tally, _ = run(judge.tally(played(critic=YES), rubric), lambda prompt, repeat: YES)
    assert tally == {(1, 1, False): 2, (1, 1, True): 1}


def test_the_same_questions_calibrate_and_assign():
    options = judge.Options(repeats=2)
    _, asked = run(judge.assign(played(), options), honest)
    found = {question: Said(honest(question.prompt, 0), 3) for question in asked}
    assert sum(app.given(judge.tally(played(), options), found).values()) == 2


def test_what_is_measured_are_options_of_the_method():
    measured, figures = judge.calibrate(judge.Tally({(1, 1, True): 9, (0, 1, False): 9, (0, 0, None): 2}))
    options = judge.Options(**measured)
    assert options.calibration.sensitivity == pytest.approx(0.95)
    assert figures["cases"] == 20 and figures["verified"] == 18 and figures["unread"] == 2
    assert figures["brier"] < 0.05 and len(figures["reliability"]) == 2
    nothing, figures = judge.calibrate(judge.Tally())
    assert judge.Options(**nothing).calibration is None and figures["brier"] is None


def test_options_that_cannot_work_are_refused():
    with pytest.raises(ValueError, match="temperature 0"):
        judge.Options(temperature=0, repeats=2)
    with pytest.raises(ValueError, match="cannot be filled in; it is offered question"):
        judge.Options(prompt="Is {drafft} right?")
    with pytest.raises(MeritError, match="one a turn was expected"):
        run(judge.assign(group(replace(graded(["solver"], 1.0), turn_verdicts=())), judge.Options()), honest)
    assert isinstance(run(judge.assign(played(), judge.Options()), honest)[1][0], Consult)
