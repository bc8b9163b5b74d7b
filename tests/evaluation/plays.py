"""Plays made by hand, whose figures can be counted."""

from __future__ import annotations

from apps.records import Graded, Sampling, Trace, Turn, Verdict
from tests.models import ids

GOLD = "42"


def turn(agent, text):
    return Turn(agent, f"{agent}.0", "", text, ids(1), ids(1, 2), [-1.0, -1.0], "base", Sampling(), 1)


def play(task, sample, said, converged=True):
    """`said`: (agent, text) in order; a text without a number is a critic's. The last answer is the team's."""
    answers = [
        Verdict(float(text == GOLD), None if text == "?" else text, "") if text[0] in "0123456789?" else None
        for _, text in said
    ]
    last = [v for v in answers if v is not None][-1]
    trace = Trace(task, str(sample), tuple(turn(*one) for one in said), said[-1][1], converged)
    return Graded(trace, last, tuple(answers))


OK, NO = "VERDICT: CORRECT", "VERDICT: INCORRECT"
PLAYS = [
    # right draft, passed, read out
    play("a", 0, [("solver", "42"), ("critic", OK), ("verifier", "42")]),
    # wrong draft found and repaired
    play("a", 1, [("solver", "41"), ("critic", NO), ("reviser", "42"), ("verifier", "42")], False),
    # right draft, cried wolf, broken, and misread on top
    play("b", 0, [("solver", "42"), ("critic", NO), ("reviser", "40"), ("verifier", "39")], False),
    # wrong draft waved through, read out well
    play("b", 1, [("solver", "7"), ("critic", OK), ("verifier", "7")]),
    # wrong draft, no parsable verdict, not repaired, verifier happens on it
    play("c", 0, [("solver", "?"), ("critic", "VERDICT: perhaps"), ("reviser", "?"), ("verifier", "42")], False),
    # right draft, passed, misread
    play("c", 1, [("solver", "42"), ("critic", OK), ("verifier", "2")]),
]
