"""Promotion: each rule on clear cases, at its threshold and at a tie."""

from __future__ import annotations

import numpy as np
import pytest

from apps.evaluation import statistics
from apps.evaluation.promotion import decide
from apps.records import MeritError

WRONG, RIGHT = np.zeros(20), np.ones(20)
NOISE = np.array([0, 1] * 10)


@pytest.mark.parametrize(
    ("rule", "before", "after", "promoted"),
    [
        ("better", WRONG, RIGHT, True),
        ("better", RIGHT, WRONG, False),
        ("better", NOISE, 1 - NOISE, False),
        ("better", RIGHT, RIGHT, False),  # a tie keeps the incumbent
        ("not_worse", WRONG, RIGHT, True),
        ("not_worse", RIGHT, WRONG, False),
        ("not_worse", NOISE, 1 - NOISE, True),
        ("not_worse", RIGHT, RIGHT, True),  # a tie promotes the candidate
        ("always", RIGHT, WRONG, True),
    ],
)
def test_rules(rule, before, after, promoted):
    decision = decide(before, after, rule)
    assert decision.promoted is promoted
    assert decision.difference == after.mean() - before.mean()
    assert decision.reason


def gaining(count):
    """Five tasks of which `count` turn right: the one-sided p is 2**−count."""
    return np.zeros(5), np.array([1.0] * count + [0.0] * (5 - count))


@pytest.mark.parametrize(("count", "promoted"), [(4, False), (5, True)])
def test_better_is_one_sided_and_strict(count, promoted):
    decision = decide(*gaining(count), rule="better")
    assert (decision.promoted, decision.p) == (promoted, 2.0**-count)
    assert decide(*gaining(5), rule="better", alpha=2.0**-5).promoted is False  # p < α, not ≤


@pytest.mark.parametrize(("count", "promoted"), [(4, True), (5, False)])
def test_not_worse_refuses_only_a_significant_loss(count, promoted):
    after, before = gaining(count)
    decision = decide(before, after)
    assert (decision.promoted, decision.p) == (promoted, 2.0**-count)


def test_several_samples_a_task_are_judged_by_task():
    before, after = np.zeros((4, 100)), np.ones((4, 100))
    decision = decide(before, after, "better")
    assert not decision.promoted and decision.p == statistics.paired(before, after).p_better == 1 / 16


def test_the_reason_says_the_figures():
    assert decide(WRONG, RIGHT, "better").reason == "significantly better (mean score +1.000, p = 9.54e-07 < 0.05)"


def test_a_misspelt_rule_is_answered_with_the_nearest():
    with pytest.raises(MeritError, match="did you mean 'not_worse'"):
        decide(WRONG, RIGHT, "not_worst")
