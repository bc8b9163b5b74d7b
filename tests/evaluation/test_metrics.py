"""Metrics on hand-counted cases and against other definitions."""

from __future__ import annotations

from itertools import combinations
from math import comb, isnan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.evaluation import metrics


@st.composite
def counts(draw):
    samples = draw(st.integers(1, 12))
    return samples, draw(st.integers(0, samples)), draw(st.integers(1, samples))


def test_rates_by_hand():
    assert metrics.share([[1, 0], [1, 1]]) == 0.75
    assert metrics.collaboration_efficiency(0.7, 0.4, 4) == pytest.approx(0.1)


def test_correction_counts_only_what_was_wrong_and_introduction_only_what_was_right():
    before, after = [0, 0, 0, 1, 1], [1, 0, 0, 1, 0]
    assert metrics.corrections(before, after) == [1, 0, 0]
    assert metrics.introductions(before, after) == [False, True]


def test_nothing_to_measure_is_nan_and_not_zero():
    assert isnan(metrics.share([]))
    assert isnan(metrics.collaboration_efficiency(0.5, 0.5, 1))
    assert metrics.corrections([1, 1], [1, 0]) == metrics.introductions([0, 0], [1, 0]) == []
    assert metrics.misreads([None], ["3"]) == []


@pytest.mark.parametrize("flags", [metrics.corrections, metrics.introductions, metrics.misreads])
def test_unequal_answers_are_refused(flags):
    with pytest.raises(ValueError, match="longer"):
        flags([0, 1], [0, 1, 1])


def test_a_misread_is_of_a_readable_answer():
    assert metrics.misreads(["3", "3", "4", None], ["3", "5", None, "9"]) == [False, True, True]


def test_pass_at_k_check_values():
    assert metrics.pass_at_k(100, 30, 1) == pytest.approx(0.30)
    assert metrics.pass_at_k(100, 30, 10) == pytest.approx(0.977, abs=5e-4)
    assert metrics.pass_at_k(10_000, 1, 5_000) == pytest.approx(0.5)  # factorials would overflow


@settings(deadline=None)
@given(counts())
def test_pass_at_k_equals_the_binomials(case):
    samples, right, k = case
    assert metrics.pass_at_k(samples, right, k) == pytest.approx(1 - comb(samples - right, k) / comb(samples, k))


@pytest.mark.parametrize("case", [(4, 1, 0), (4, 1, 5), (4, 5, 1), (4, -1, 1)])
def test_pass_at_k_refuses_what_cannot_be(case):
    with pytest.raises(ValueError, match="pass@k"):
        metrics.pass_at_k(*case)


@pytest.mark.parametrize(
    ("answers", "gold", "expected"),
    [
        (["7", "7", "9"], "7", 1.0),
        (["7", "9", "9"], "7", 0.0),
        (["7", "9"], "7", 0.5),  # a tie is broken by lot
        (["7", "8", "9"], "7", 1 / 3),
        ([None, None, "7"], "7", 1.0),  # unparsed answers do not vote
        ([None, None], "7", 0.0),
    ],
)
def test_vote_by_hand(answers, gold, expected):
    assert metrics.vote(answers, [answer == gold for answer in answers]) == pytest.approx(expected)


def test_majority_at_k_is_a_mean_over_blocks():
    answers = ["7", "7", "9", "9", "9", "7", "7"]
    assert metrics.majority_at_k(answers, [a == "7" for a in answers], 3) == 0.5  # 7 7 9 | 9 9 7, the seventh left over
    assert metrics.majority_at_k(answers, [a == "7" for a in answers], 1) == pytest.approx(4 / 7)
    with pytest.raises(ValueError, match="k=8"):
        metrics.majority_at_k(answers, [True] * 7, 8)


@settings(deadline=None)
@given(st.lists(st.sampled_from(["7", "8", "9", None]), min_size=1, max_size=7))
def test_vote_does_not_depend_on_order(answers):
    right = [a == "7" for a in answers]
    assert metrics.vote(answers[::-1], right[::-1]) == pytest.approx(metrics.vote(answers, right))


def test_detection_by_hand():
    said, wrong = [1, 1, 1, 0, 0, 0, 0, 0], [1, 1, 0, 1, 0, 0, 0, 0]
    found = metrics.detection([bool(s) for s in said], [bool(w) for w in wrong])
    assert found == metrics.Detection(2, 1, 4, 1)
    assert (found.precision, found.recall, found.specificity) == ((2, 3), (2, 3), (4, 5))


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=2).filter(lambda wrong: len(set(wrong)) == 2), st.booleans())
def test_a_critic_that_always_says_the_same_has_balanced_accuracy_of_one_half(wrong, always):
    critic = metrics.detection([always] * len(wrong), wrong)
    assert sum(hits / of for hits, of in (critic.recall, critic.specificity)) / 2 == 0.5


def test_an_unparsed_verdict_is_an_error_of_either_kind():
    assert metrics.detection([None, None], [True, False]) == metrics.Detection(0, 1, 0, 1)


def test_wrong_answers_alone_say_nothing_of_the_right_ones():
    critic = metrics.detection([True, False], [True, True])
    assert (critic.precision, critic.recall, critic.specificity) == ((1, 1), (1, 2), (0, 0))


@settings(deadline=None)
@given(counts())
def test_pass_at_k_is_the_share_of_subsets_with_a_right_one(case):
    samples, right, k = min(case[0], 7), min(case[1], case[0], 7), min(case[2], 7)
    subsets = list(combinations([True] * right + [False] * (samples - right), k))
    assert metrics.pass_at_k(samples, right, k) == pytest.approx(np.mean([any(s) for s in subsets]))
