"""Intervals and tests against scipy, against enumeration, and for the coverage that they promise."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from apps.evaluation import statistics
from apps.evaluation.metrics import Detection

FLAGS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


def columns(flags):
    return np.array(flags, dtype=float).T


@settings(deadline=None)
@given(st.integers(1, 3000), st.floats(0, 1), st.sampled_from([0.9, 0.95, 0.99]))
def test_wilson_equals_scipy(trials, share, confidence):
    successes = round(share * trials)
    mine = statistics.wilson(successes, trials, confidence)
    theirs = stats.binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    assert (mine.low, mine.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_wilson_without_trials_knows_nothing():
    assert statistics.wilson(0, 0) == statistics.Interval(0.0, 1.0)


@settings(deadline=None)
@given(FLAGS)
def test_mcnemar_equals_scipys_binomial_test(flags):
    before, after = columns(flags)
    test = statistics.mcnemar(before, after)
    assert test.gained == sum(not b and a for b, a in flags)
    assert test.lost == sum(b and not a for b, a in flags)
    if test.gained + test.lost:
        assert test.p == pytest.approx(stats.binomtest(test.lost, test.gained + test.lost).pvalue)
    else:
        assert test.p == 1.0


@settings(max_examples=50, deadline=None)
@given(FLAGS)
def test_paired_of_one_sample_a_task_is_mcnemar(flags):
    before, after = columns(flags)
    assert statistics.paired(before, after).p == pytest.approx(statistics.mcnemar(before, after).p)


def by_enumeration(differences):
    """(two-sided, better, worse) over all 2**n sign patterns."""
    sums = np.array([np.dot(signs, differences) for signs in product([1, -1], repeat=len(differences))])
    total = sum(differences)
    return [(abs(sums) >= abs(total) - 1e-9).mean(), (sums >= total - 1e-9).mean(), (sums <= total + 1e-9).mean()]


@settings(deadline=None)
@given(st.lists(st.integers(-5, 5), min_size=1, max_size=8))
def test_sign_flip_equals_enumeration(whole):
    assert statistics.flip_exactly(np.array(whole)) == pytest.approx(by_enumeration(whole))


def test_sign_flip_by_draws_comes_near_to_enumeration():
    differences = np.array([0.31, -0.12, 0.505, 0.2, 0.17, -0.4, 0.333, 0.61])
    assert statistics.flip_by_draws(differences, seed=0) == pytest.approx(by_enumeration(differences), abs=0.02)
    assert statistics.sign_flip(differences, steps=4) == statistics.flip_by_draws(differences, seed=0)


def test_draws_never_claim_an_impossible_p():
    assert min(statistics.flip_by_draws(np.full(200, 0.123), seed=0)) == pytest.approx(1 / 10_001)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 4))
def test_paired_swaps_with_its_arguments(seed, k_before, k_after):
    rng = np.random.default_rng(seed)
    before, after = rng.integers(0, 2, (7, k_before)), rng.integers(0, 2, (7, k_after))
    one, other = statistics.paired(before, after), statistics.paired(after, before)
    assert one.difference == pytest.approx(-other.difference)
    assert (one.p, one.p_better, one.p_worse) == pytest.approx((other.p, other.p_worse, other.p_better))
    expected = by_enumeration(after.mean(axis=1) - before.mean(axis=1))
    assert [one.p, one.p_better, one.p_worse] == pytest.approx(expected)


def test_paired_by_hand():
    """Four tasks all go from 0 of 2 to 1 of 2: one of 16 sign patterns is as high, two are as far."""
    test = statistics.paired(np.zeros((4, 2)), np.array([[1, 0]] * 4))
    assert (test.difference, test.low, test.high) == (0.5, 0.5, 0.5)
    assert (test.p, test.p_better, test.p_worse) == (2 / 16, 1 / 16, 1.0)


def test_samples_of_one_task_are_not_counted_as_independent():
    """The same answers given eight times over are no more evidence than once."""
    before, after = np.zeros((6, 1)), np.array([[1], [1], [1], [1], [0], [0]])
    once, often = statistics.paired(before, after), statistics.paired(before.repeat(8, 1), after.repeat(8, 1))
    assert (often.p, often.low, often.high) == pytest.approx((once.p, once.low, once.high))


def test_paired_refuses_other_tasks_and_missing_scores():
    with pytest.raises(ValueError, match="3 before and 2 after"):
        statistics.paired(np.zeros(3), np.zeros(2))
    with pytest.raises(ValueError, match="at least one task"):
        statistics.paired(np.zeros(0), np.zeros(0))
    with pytest.raises(ValueError, match="numbers"):
        statistics.paired(np.zeros(2), np.array([0.0, np.nan]))


def test_bootstrap_equals_scipys_and_is_seeded():
    values = np.random.default_rng(3).random(80)
    mine = statistics.bootstrap(values, seed=1)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", random_state=2).confidence_interval
    assert (mine.low, mine.high) == pytest.approx((theirs.low, theirs.high), abs=0.004)
    assert mine == statistics.bootstrap(values, seed=1) != statistics.bootstrap(values, seed=2)


def test_the_interval_of_a_paired_difference_covers_the_truth():
    """Tasks of differing difficulty, three samples each; the truth is +.1."""
    rng, covered = np.random.default_rng(4), 0
    for _ in range(200):
        skill = rng.uniform(0.1, 0.8, (60, 1))
        before, after = rng.random((60, 3)) < skill, rng.random((60, 3)) < skill + 0.1
        per_task = after.mean(axis=1) - before.mean(axis=1)
        interval = statistics.bootstrap(per_task, draws=400)
        covered += interval.low <= 0.1 <= interval.high
    assert 0.88 <= covered / 200 <= 0.99


def test_the_paired_test_keeps_its_level():
    """Under no difference p < .05 comes up at most about one time in twenty, and is not never."""
    rng = np.random.default_rng(5)
    ps = []
    for _ in range(600):
        skill = rng.uniform(0.1, 0.9, (40, 1))
        before, after = ((rng.random((40, 4)) < skill).sum(axis=1) for _ in range(2))
        ps.append(statistics.sign_flip((after - before) / 4, steps=4)[0])
    assert 0.02 <= np.mean(np.array(ps) < 0.05) <= 0.075


def test_balanced_accuracy_interval_by_hand():
    """Equal rates and counts: the interval is Wilson's, shrunk by √2 about the estimate."""
    one = statistics.wilson(30, 40)
    both = statistics.balanced_accuracy(Detection(30, 10, 30, 10))
    assert both.low == pytest.approx(0.75 - (0.75 - one.low) / np.sqrt(2))
    assert both.high == pytest.approx(0.75 + (one.high - 0.75) / np.sqrt(2))


def test_balanced_accuracy_interval_at_the_edge_and_without_a_class():
    perfect = statistics.balanced_accuracy(Detection(20, 0, 20, 0))
    assert perfect.high == 1.0 and 0.85 < perfect.low < 0.95
    assert statistics.balanced_accuracy(Detection(5, 0, 0, 5)) == statistics.Interval(0.0, 1.0)


def test_balanced_accuracy_interval_covers_the_truth():
    rng, covered = np.random.default_rng(6), 0
    for _ in range(1000):
        found, passed = int(rng.binomial(30, 0.6)), int(rng.binomial(90, 0.9))
        interval = statistics.balanced_accuracy(Detection(found, 90 - passed, passed, 30 - found))
        covered += interval.low <= 0.75 <= interval.high
    assert 0.93 <= covered / 1000 <= 0.98
