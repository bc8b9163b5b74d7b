"""Two redundant critics: who is asked what, and whose word counts."""

from __future__ import annotations

import pytest

from apps.effects import Answer
from apps.topologies import two_critics
from tests.topologies.test_topologies import NO, TASK, YES, drive, roles, script


@pytest.mark.parametrize(
    ("first", "second", "end"),
    [
        (YES, YES, Answer("d", True)),
        (NO, YES, Answer("r", False)),
        (YES, NO, Answer("r", False)),
        (NO, NO, Answer("r", False)),
        (YES, "no verdict", Answer("r", False)),
    ],
)
def test_the_draft_stands_only_where_both_agree(first, second, end):
    says = script(solver=["d"], critic_a=[first], critic_b=[second], reviser=["r"])
    asks, answer = drive(two_critics.play(TASK, two_critics.Options()), says)
    assert answer == end and roles(asks) == ["solver", "critic_a", "critic_b"] + ["reviser"] * (end.text == "r")


def test_a_critic_does_not_see_the_other_and_the_reviser_sees_both():
    says = script(solver=["d"], critic_a=["A"], critic_b=["B"], reviser=["r"])
    asks, _ = drive(two_critics.play(TASK, two_critics.Options()), says)
    assert dict(asks[1].fields) == dict(asks[2].fields) == {"question": TASK.question, "draft": "d"}
    assert asks[3].fields["review"] == "A\nB" and asks[3].bypass == "d"
