"""Scripted agents: their error rates, their formats, their keys."""

from __future__ import annotations

import numpy as np
import pytest

from apps import answer
from apps.effects import Ask
from apps.inference.engine import Request
from apps.inference.engines import scripted
from apps.records import MeritError, Policy, Sampling, Task

TASK = Task("t", "What is 40 + 2?", "42", "arithmetic", "train")
RIGHT, WRONG = "ANSWER: 42", "ANSWER: 41"


def speak(role, fields, n=2000, **options):
    engine = scripted.Scripted(scripted.Options(**options))
    prompt, ids = engine.render("", "?")
    asked = [Request(Policy(role), prompt, ids, Sampling(), seed, TASK, Ask(role, fields)) for seed in range(n)]
    return [completion.text for completion in engine.generate(asked)]


@pytest.mark.parametrize(
    ("role", "fields", "option", "err"),
    [
        ("solver", {}, "solve", lambda text: text != RIGHT),
        ("reviser", {}, "revise", lambda text: text != RIGHT),
        ("verifier", {"draft": WRONG}, "report", lambda text: text != WRONG),
        ("critic", {"draft": WRONG}, "wave_through", answer.verdict),
        ("critic", {"draft": RIGHT}, "cry_wolf", lambda text: not answer.verdict(text)),
    ],
)
@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_a_role_errs_as_often_as_it_is_told(role, fields, option, err, rate):
    share = np.mean([bool(err(text)) for text in speak(role, fields, **{option: rate})])
    assert abs(share - rate) <= 4 * np.sqrt(rate * (1 - rate) / 2000)


def test_an_answer_that_is_no_number_is_told():
    with pytest.raises(MeritError, match=r"engine.name=scripted: .*'\(3 \+ 4\) \* 6' is none"):
        scripted._wrong("(3 + 4) * 6", np.random.default_rng(0))


def test_ids_are_the_bytes_of_the_text_closed_by_an_end_token():
    engine = scripted.load("", scripted.Options(), "cpu")
    prompt, ids = engine.render("Be brief.", "2 + 2 = ?")
    (said,) = engine.generate([Request(Policy("solver"), prompt, ids, Sampling(), 3, TASK, Ask("solver", {}))])
    assert prompt == "Be brief.\n2 + 2 = ?" and bytes(ids.tolist()).decode() == prompt
    assert bytes(said.ids.tolist()).decode() == said.text + "\0" and len(said.logprobs) == len(said.ids)


def test_a_role_without_a_duty_is_named():
    with pytest.raises(MeritError, match="scripted duty of stranger"):
        speak("stranger", {}, 1)


HIDDEN = f"{scripted.SURE} ANSWER: 41"
CAREFUL = {"solve": 0, "wave_through": 0, "cry_wolf": 0, "revise": 0, "break_right": 0, "report": 0}
REJECTED, PASSED = {"review": "VERDICT: INCORRECT"}, {"review": "VERDICT: CORRECT"}


def plant(role, fields, kind="", *, n=400, path="", policy="planted", **options):
    """What a role with one fault says over seeds, and the seeds that were struck."""
    rate, turn = options.pop("rate", 1.0), options.pop("turn", "any")
    faults = [{"role": role, "kind": kind, "rate": rate, "turn": turn}] if kind else []
    engine = scripted.Scripted(scripted.Options(faults=faults, **options))
    prompt, ids = engine.render("", "?")
    ask = Ask(role, fields)
    asked = [
        Request(Policy(role, policy), prompt, ids, Sampling(), s, TASK, ask, path or f"{role}.0") for s in range(n)
    ]
    return [said.text for said in engine.generate(asked)], engine.struck


@pytest.mark.parametrize(
    ("kind", "role", "fields", "harm"),
    [
        ("wrong_step", "solver", {}, lambda text: text.startswith(scripted.SURE) and not text.endswith(" 42")),
        ("slip", "reviser", {"draft": WRONG, **REJECTED}, lambda text: text.startswith("ANSWER: ") and text != RIGHT),
        ("wave_through", "critic", {"draft": WRONG}, lambda text: answer.verdict(text) is True),
        ("cry_wolf", "critic", {"draft": RIGHT}, lambda text: answer.verdict(text) is False),
        ("break_right", "reviser", {"draft": RIGHT, **REJECTED}, lambda text: text != RIGHT),
        ("misread", "verifier", {"draft": RIGHT}, lambda text: text != RIGHT),
        ("sabotage", "solver", {}, lambda text: text.startswith(scripted.SURE)),
        ("sabotage", "critic", {"draft": RIGHT}, lambda text: answer.verdict(text) is False),
        ("sabotage", "critic", {"draft": WRONG}, lambda text: answer.verdict(text) is True),
        ("sabotage", "verifier", {"draft": RIGHT}, lambda text: text != RIGHT),
        ("free_ride", "critic", {"draft": WRONG}, lambda text: answer.verdict(text) is True),
        ("free_ride", "reviser", {"draft": WRONG, **REJECTED}, lambda text: text == WRONG),
    ],
)
def test_a_fault_strikes_with_its_rate_does_its_harm_and_is_known(kind, role, fields, harm):
    texts, struck = plant(role, fields, kind, rate=0.4, **CAREFUL)
    assert abs(len(struck) / 400 - 0.4) < 0.1 and set(struck.values()) == {kind}
    assert all(harm(text) == (seed in struck) for seed, text in enumerate(texts))


@pytest.mark.parametrize(
    ("kind", "role", "fields"),
    [
        ("wave_through", "critic", {"draft": RIGHT}),
        ("wave_through", "critic", {"draft": HIDDEN}),  # no honest critic would have noticed
        ("cry_wolf", "critic", {"draft": WRONG}),
        ("break_right", "reviser", {"draft": WRONG, **REJECTED}),
        ("break_right", "reviser", {"draft": RIGHT, **PASSED}),
        ("misread", "verifier", {"draft": WRONG}),
        ("free_ride", "critic", {"draft": RIGHT}),
        ("free_ride", "reviser", {"draft": RIGHT, **REJECTED}),
    ],
)
def test_a_fault_does_not_strike_where_it_can_do_no_harm(kind, role, fields):
    assert plant(role, fields, kind, **CAREFUL) == (plant(role, fields, **CAREFUL)[0], {})


def test_a_stand_in_has_no_faults_and_no_fault_changes_what_is_usual():
    usual = plant("solver", {})
    assert plant("solver", {}, "slip", policy="base") == usual
    assert plant("solver", {}, "slip", rate=0.0) == usual
    assert plant("solver", {}, "slip")[0] != usual[0]


def test_a_fault_may_wait_for_a_turn():
    first = plant("critic", {"draft": WRONG}, "wave_through", turn=1, path="critic.0", **CAREFUL)
    second = plant("critic", {"draft": WRONG}, "wave_through", turn=1, path="team.0/critic.1", **CAREFUL)
    assert not first[1] and len(second[1]) == 400


def test_nobody_notices_a_wrong_step_but_a_critic_that_cries_wolf():
    assert set(plant("critic", {"draft": HIDDEN}, **CAREFUL)[0]) == {"VERDICT: CORRECT"}


@pytest.mark.parametrize(("chance", "share"), [(0.0, 0.0), (0.7, 0.7), (1.0, 1.0)])
def test_a_reviser_that_listens(chance, share):
    options = {"break_right": chance, "revise": 0.0}
    broken = [text != RIGHT for text in plant("reviser", {"draft": RIGHT, **REJECTED}, **options)[0]]
    assert abs(np.mean(broken) - share) < 0.1
    assert set(plant("reviser", {"draft": WRONG, **PASSED}, **options)[0]) == {WRONG}  # called right, it is kept
    assert set(plant("reviser", {"draft": WRONG, **REJECTED}, **options)[0]) == {RIGHT}


def test_a_role_may_differ_from_the_others_of_its_duty():
    options = {"wave_through": 0.0, "roles": {"critic_b": {"wave_through": 1.0}}}
    assert set(plant("critic_a", {"draft": WRONG}, **options)[0]) == {"VERDICT: INCORRECT"}
    assert set(plant("critic_b", {"draft": WRONG}, **options)[0]) == {"VERDICT: CORRECT"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"faults": [{"role": "solvr", "kind": "slip"}]}, "did you mean 'solver'"),
        ({"faults": [{"role": "solver", "kind": "cry_wolf"}]}, "cannot strike the solver, whose duty is solve"),
        ({"roles": {"critic": {"cry": 0.1}}}, "did you mean 'cry_wolf'|known: .*cry_wolf"),
        ({"roles": {"critic": {"cry_wolf": 3.0}}}, "less than or equal to 1"),
    ],
)
def test_a_slip_in_the_options_is_told(options, said):
    with pytest.raises(ValueError, match=said):
        scripted.Options(**options)
