"""Every built-in topology: what it declares, whom it asks in what order, and what stands where a role is absent."""

from __future__ import annotations

from string import Formatter

import pytest

from apps import answer, leaf
from apps.effects import Answer, Ask
from apps.topologies import malt, single, solve_critique_revise
from tests import models

TASK = models.tasks(1)[0]
NAMES = leaf.names("topologies")
YES, NO = "VERDICT: CORRECT", "VERDICT: INCORRECT"


def drive(playing, says):
    """Answers each Ask by `says(ask)`; gives the asks and the Answer."""
    asks, sent = [], None
    while True:
        try:
            ask = playing.send(sent)
        except StopIteration as end:
            return asks, end.value
        asks.append(ask)
        sent = says(ask)


def script(**texts):
    """Each role says its texts one after the other."""
    left = {role: list(said) for role, said in texts.items()}
    return lambda ask: left[ask.role].pop(0)


def roles(asks):
    return [ask.role for ask in asks]


@pytest.mark.parametrize("name", NAMES)
def test_a_topology_declares_a_duty_and_a_prompt_for_each_role_it_asks(name):
    module = leaf.find("topologies", name)
    asks, answer = drive(module.play(TASK, module.Options()), lambda ask: f"{NO} by {ask.role}")
    assert isinstance(answer, Answer) and set(roles(asks)) == set(module.ROLES) == set(module.DUTIES) == set(
        module.PROMPTS
    )
    assert set(module.DUTIES.values()) <= {"solve", "check", "revise", "report"}
    for ask in asks:
        assert isinstance(ask, Ask)
        wanted = {field for _, field, _, _ in Formatter().parse(module.PROMPTS[ask.role]) if field}
        assert wanted <= set(ask.fields), ask.role


@pytest.mark.parametrize("name", NAMES)
def test_a_play_whose_roles_are_all_bypassed_but_the_needed_ends_in_the_draft(name):
    module = leaf.find("topologies", name)
    _, answer = drive(module.play(TASK, module.Options()), lambda ask: "draft" if ask.bypass is None else ask.bypass)
    assert answer == Answer("draft", converged=True)


def test_single_asks_once():
    asks, answer = drive(single.play(TASK, single.Options()), script(solver=["42"]))
    assert roles(asks) == ["solver"] and answer == Answer("42")


def team(rounds, **texts):
    return drive(solve_critique_revise.play(TASK, solve_critique_revise.Options(rounds=rounds)), script(**texts))


def test_agreement_goes_straight_to_the_verifier():
    asks, answer = team(3, solver=["a"], critic=[YES], verifier=["A"])
    assert roles(asks) == ["solver", "critic", "verifier"] and answer == Answer("A", converged=True)
    assert asks[1].fields["draft"] == asks[2].fields["draft"] == "a"


def test_the_reviser_works_until_the_critic_agrees():
    asks, answer = team(3, solver=["a"], critic=[NO, YES], reviser=["b"], verifier=["B"])
    assert roles(asks) == ["solver", "critic", "reviser", "critic", "verifier"] and answer == Answer(
        "B", converged=True
    )
    assert asks[2].fields == {"question": TASK.question, "draft": "a", "review": NO} and asks[2].bypass == "a"
    assert asks[3].fields["draft"] == asks[4].fields["draft"] == asks[4].bypass == "b"


def test_used_up_rounds_end_without_agreement():
    asks, answer = team(2, solver=["a"], critic=[NO, NO], reviser=["b", "c"], verifier=["C"])
    assert roles(asks) == ["solver", "critic", "reviser", "critic", "reviser", "verifier"]
    assert answer == Answer("C", converged=False) and asks[-1].fields["draft"] == "c"


def test_malt_has_three_turns_whatever_the_verdict():
    for verdict in (YES, NO, ""):
        asks, answer = drive(
            malt.play(TASK, malt.Options()), script(generator=["a"], verifier=[verdict], refiner=["b"])
        )
        assert roles(asks) == list(malt.ROLES) and answer == Answer("b", converged=verdict == YES)
        assert asks[2].fields == {"question": TASK.question, "draft": "a", "review": verdict} and asks[2].bypass == "a"


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("VERDICT: CORRECT", True),
        ("Found 4, given 4. VERDICT: CORRECT.\n", True),
        ("VERDICT: INCORRECT", False),
        ("VERDICT: CORRECT VERDICT: INCORRECT", False),
        ("VERDICT: CORRECT, I think", None),
        ("VERDICT: correct", None),
        ("VERDICT:CORRECT", None),
        ("CORRECT", None),
        ("", None),
    ],
)
def test_verdicts_are_parsed_strictly(text, meant):
    assert answer.verdict(text) is meant
