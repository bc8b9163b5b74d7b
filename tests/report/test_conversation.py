"""Traces and credit in words, on records made by hand and on a real run."""

from __future__ import annotations

import numpy as np

from apps.credit import results
from apps.records import (
    Credit,
    Graded,
    Outcome,
    Replay,
    Sampling,
    Task,
    Trace,
    Turn,
    Verdict,
)
from apps.report import conversation
from apps.report.rounds import played

NOTHING = np.zeros(0, np.int32)


def turn(agent: str, text: str, **more) -> Turn:
    shape = {"policy": "0123456789abcdef", "sampling": Sampling(), "seed": 0, "prompt": "p" * 300, **more}
    return Turn(
        agent=agent, path=f"{agent}.0", text=text, prompt_ids=NOTHING, completion_ids=NOTHING, logprobs=NOTHING, **shape
    )


RIGHT, WRONG = Verdict(1.0, "19", "19 = 19"), Verdict(0.0, "20", "20 is not 19")
TURNS = (
    turn("solver", "ANSWER: 20"),
    turn("critic", "VERDICT: CORRECT"),
    turn("verifier", "ANSWER: 20", policy="base"),
)
GRADED = Graded(Trace("t", "0", TURNS, "ANSWER: 20", True), WRONG, (WRONG, None, WRONG))
CREDIT = Credit(
    "t#0",
    (-0.5, -0.31, 0.0),
    (0.1, 0.12, 0.0),
    {"solver": -0.5, "critic": -0.31, "verifier": 0.0},
    {"critic": 0.12},
    ("a note",),
)


def test_every_turn_has_its_speaker_text_verdict_and_credit():
    said = conversation.conversation(GRADED, CREDIT, task=Task("t", "How many?", "19", "arithmetic", "test"))
    assert "How many?" in said and "gold answer: 19" in said
    assert "solver.0 (adapter 0123456789ab, temperature 1)" in said and "verifier.0 (base model, temperature 1)" in said
    assert "→ wrong: 20; credit −0.50 ± 0.10" in said
    assert "→ accepts a wrong answer; credit −0.31 ± 0.12" in said
    assert "→ wrong: 20; credit 0.00\n" in said
    assert "The team, by agreement: ANSWER: 20" in said and "(20 is not 19)" in said
    assert "\033" not in said


def test_colour_adds_nothing_but_colour():
    import re

    plain, coloured = (conversation.conversation(GRADED, CREDIT, color=c) for c in (False, True))
    assert "\033[" in coloured and re.sub(r"\033\[\d+m", "", coloured) == plain


def test_prompts_are_shortened_unless_asked_for():
    short, full = (conversation.conversation(GRADED, full=f) for f in (False, True))
    assert short.count("p" * 90) < full.count("p" * 90) and "…" in short and "…" not in full


def test_a_critic_is_judged_by_the_answer_before_it():
    for answer, text, said, fair in [
        (RIGHT, "VERDICT: CORRECT", "accepts a right answer", True),
        (RIGHT, "VERDICT: INCORRECT", "rejects a right answer", False),
        (WRONG, "VERDICT: INCORRECT.", "rejects a wrong answer", True),
        (WRONG, "who knows", "", None),
    ]:
        turns = (turn("solver", "?"), turn("critic", text))
        assert conversation.mark(Graded(Trace("t", "0", turns, "", True), answer, (answer, None)), 1) == (said, fair)


def replays(trace: int, scores: list[float], *absent: tuple[str, str]) -> dict[Replay, Outcome]:
    return {Replay(trace, absent, k): Outcome(s, "", 1, 1) for k, s in enumerate(scores)}


def test_why_names_the_replays_of_this_trace_alone():
    critic, solver, verifier = ("critic", "base"), ("solver", "bypass"), ("verifier", "bypass")
    findings = {
        **replays(0, [1, 1, 1, 0], critic),
        **replays(1, [0, 0, 0, 0], critic),
        **replays(0, [1, 0, 0, 0], critic, solver, verifier),
        **replays(0, [0, 1, 0, 1], solver, verifier),
    }
    said = conversation.explain(GRADED, CREDIT, findings, 0)
    assert (
        "the critic −0.31 ± 0.12: with it replaced by the base model the team was right in 3 of 4 replays, "
        "with it in place this play was wrong"
    ) in said
    assert "with everyone else absent: right in 2 of 4 replays with it, right in 1 of 4 replays without it" in said
    assert "The values add up to −0.81: this play's score, 0, less 0.25" in said
    assert "a note" not in said


def test_why_without_replays_gives_the_methods_notes():
    said = conversation.explain(GRADED, CREDIT)
    assert "a note" in said and "the solver −0.50" in said and "replays" not in said


def test_values_of_turns_alone_are_named_by_their_turns():
    assert "critic.0 −0.31 ± 0.12" in conversation.explain(GRADED, Credit("t#0", CREDIT.values, CREDIT.errors))


def test_kept_prefixes_are_told_apart_from_coalitions():
    asked = [Replay(0, keep=2, repeat=k, fresh="rest") for k in range(3)]
    found = dict(zip(asked, [Outcome(s, "", 1, 1) for s in (1, 0, 1)], strict=True))
    game, said = conversation.played(found, 0)
    assert not game and said[1:] == ["From turn 3 on played again: right in 2 of 3 replays."]


def test_a_real_shapley_value_is_explained_by_its_replays(made):
    _, inputs, _ = made
    plays = played([inputs["rollout"][0]], [inputs["grade"][0]], [inputs["assign"][0]])
    findings = results.read_replays(inputs["replay"][0])[plays.graded[0].trace.task]
    said = conversation.explain(plays.graded[0], plays.credit[0], findings, 0, full=True)
    game, _ = conversation.played(findings, 0)
    spoke = plays.graded[0].trace.agents
    assert len(game) == 2 ** len(spoke) - 1
    assert said.count("it did not speak in this play") == 4 - len(spoke) and conversation.BYPASSED in said
    for agent in spoke:
        scores = game[frozenset({(agent, "bypass")})]
        assert f"with it bypassed the team was right in {int(sum(scores))} of 2 replays" in said
