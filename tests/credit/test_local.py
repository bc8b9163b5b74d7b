"""Each agent by the truth of its own words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from apps.credit import local
from apps.records import MeritError, Verdict
from tests.credit.plays import drive, graded, group, no_replays

DUTIES = {"solver": "solve", "critic": "check", "reviser": "revise", "verifier": "report"}
TRUE, FALSE = "VERDICT: CORRECT", "VERDICT: INCORRECT"


def credit(*said, score=0.0, duties=DUTIES, **options):
    """One trace; each of `said` is (agent, text, parsed answer or None, right or None for no verdict)."""
    member = graded([agent for agent, *_ in said], score)
    turns = tuple(replace(t, text=text) for t, (_, text, *_) in zip(member.trace.turns, said, strict=True))
    marks = tuple(None if right is None else Verdict(float(right), parsed, "") for *_, parsed, right in said)
    member = replace(member, trace=replace(member.trace, turns=turns), turn_verdicts=marks)
    the_group = replace(group(member, roles=tuple(DUTIES)), duties=duties)
    return drive(local.assign(the_group, local.Options(**options)), no_replays)[0][0]


def solver(right):
    return "solver", "", "42" if right else "7", right


def critic(text):
    return "critic", text, None, None


@pytest.mark.parametrize(
    ("right", "text", "value"),
    [(True, TRUE, 1), (True, FALSE, -1), (False, FALSE, 1), (False, TRUE, -1), (False, "well", -1), (True, "", -1)],
)
def test_a_critic_by_the_truth_of_its_verdict_whatever_came_of_it(right, text, value):
    for score in (0.0, 1.0):
        assert credit(solver(right), critic(text), score=score).values == (1 if right else -1, value)


def test_a_critic_is_held_against_the_latest_answer():
    said = solver(False), critic(FALSE), ("reviser", "", "42", True), critic(TRUE), critic(FALSE)
    assert credit(*said).values == (-1, 1, 1, 1, -1)


def test_a_verifier_by_whether_it_reports_what_it_was_given():
    assert credit(solver(False), ("verifier", "", "7", False)).values == (-1, 1)  # wrong, but faithful
    assert credit(solver(True), ("verifier", "", "7", False)).values == (1, -1)
    assert credit(solver(True), ("verifier", "", None, False)).values == (1, -1)
    assert credit(solver(False), ("verifier", "", "42", True)).values == (-1, -1)  # right by misreading


def test_what_cannot_be_judged_is_worth_nothing():
    assert credit(critic(TRUE), ("verifier", "", "42", True)).values == (0, 0)
    assert credit(("solver", "", None, False), ("verifier", "", "42", True)).values == (-1, 0)


def test_options_agents_and_notes():
    given = credit(solver(True), critic(FALSE), critic(TRUE), right=0.5, wrong=-0.25)
    assert given.values == (0.5, -0.25, 0.5)
    assert given.agents == {"solver": 0.5, "critic": 0.125, "reviser": 0.0, "verifier": 0.0}
    assert given.notes[:2] == ("solver.0 was right", "critic.0 misjudged the answer before it")


@pytest.mark.parametrize("duties", [{}, {**DUTIES, "critic": "sing"}])
def test_an_unknown_duty_is_refused(duties):
    with pytest.raises(MeritError, match="duty of '(solver|critic)'.*declare it in the topology's DUTIES"):
        credit(solver(True), critic(TRUE), duties=duties)


def test_a_trace_with_too_few_verdicts_is_refused():
    member = graded(["solver", "critic"], 1.0, [True])
    with pytest.raises(MeritError, match="2 turns and 1 turn"):
        drive(local.assign(replace(group(member), duties=DUTIES), local.Options()), no_replays)
