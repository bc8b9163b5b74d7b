"""Turns by the plays that go on from them: a team whose value at every point is known."""

from __future__ import annotations

import pytest

from apps.credit import monte_carlo
from apps.records import Outcome
from tests.credit.plays import graded, group

WORTH = (0.25, 0.75, 0.5)  # of the beginnings of 0, 1 and 2 turns: with 4 repeats, 1, 3 and 2 of them end right


def run(the_group, repeats=4, **options):
    method, sent, asked = monte_carlo.assign(the_group, monte_carlo.Options(repeats=repeats, **options)), None, []
    try:
        while True:
            wanted = method.send(sent)
            asked += wanted
            sent = [Outcome(float(q.repeat < WORTH[q.keep] * repeats), "", 1, 1) for q in wanted]
    except StopIteration as end:
        return end.value, asked


def test_each_turn_is_worth_what_it_changed():
    (credit,), asked = run(group(graded(["solver", "critic", "solver"], 1.0)))
    assert credit.values == pytest.approx((0.5, -0.25, 0.5))
    assert credit.agents == pytest.approx({"solver": 1.0, "critic": -0.25})
    assert sum(credit.values) == pytest.approx(1.0 - 0.25) and credit.residual == pytest.approx(0)
    assert all(q.fresh == "rest" and not q.absent for q in asked)
    assert "right in 25% of the plays before it, in 75% after" in credit.notes[0]


def test_what_begins_alike_is_played_once():
    both = group(graded(["solver", "critic", "solver"], 1.0), graded(["solver", "critic", "solver"], 0.0, sample=1))
    credit, asked = run(both)
    assert len(asked) == 3 * 4
    assert [c.values[2] for c in credit] == pytest.approx([0.5, -0.5])


def test_outside_the_share_nothing_is_played_and_a_turn_is_worth_the_score_less_the_mean():
    both = group(graded(["solver", "critic"], 1.0), graded(["solver"], 0.0, sample=1))
    credit, asked = run(both, share=0.0)
    assert not asked and [c.values for c in credit] == [(0.5, 0.5), (-0.5,)]
    assert not monte_carlo.asks(monte_carlo.Options(share=0.0)) and monte_carlo.asks(monte_carlo.Options())
