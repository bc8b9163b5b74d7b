"""Intervals and tests against scipy, against enumeration, and for the coverage that they promise."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from apps.evaluation import statistics

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


@pytest.mark.parametrize("trials", [1, 7, 500, 503, 999])
def test_wilson_never_passes_by_what_was_counted(trials):
    """Nor by a rounding error: a share of 0 has an interval from 0, and one of 1 an interval to 1."""
    assert statistics.wilson(0, trials).low == 0.0 == one([0] * trials, [1] * trials).low
    assert statistics.wilson(trials, trials).high == 1.0 == one([1] * trials, [1] * trials).high


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


ONE, HALVES = np.eye(1), np.array([[0.5, 0.5]])


def one(hits, of, **options):
    """The estimate of a share from its counts by task."""
    hits, of = np.array(hits, float)[:, None], np.array(of, float)[:, None]
    return statistics.estimates(hits, of, ONE, **options)[0]


def interval(estimate):
    return estimate.low, estimate.high


def wilson(successes, trials):
    found = statistics.wilson(successes, trials)
    return found.low, found.high


def by_quadratic(share, variance):
    """The p at which |share − p| = z·√(p(1 − p)/n), where n is such that the share itself has this variance."""
    z2 = stats.norm.ppf(0.975) ** 2 * variance / (share * (1 - share))
    return sorted(np.roots([1 + z2, -2 * share - z2, share**2]))


@pytest.mark.parametrize(
    ("hits", "of"), [([2, 0, 1, 2], [2, 2, 2, 3]), ([0.5, 1, 0, 0.25], [1, 1, 1, 1]), ([3, 0, 1], [4, 1, 6])]
)
def test_the_interval_of_a_share_has_the_variance_of_all_draws_of_whole_tasks(hits, of):
    draws = [list(drawn) for drawn in product(range(len(hits)), repeat=len(hits))]
    shares = [np.take(hits, drawn).sum() / np.take(of, drawn).sum() for drawn in draws]
    found = one(hits, of)
    assert found.value == pytest.approx(sum(hits) / sum(of)) and found.n == sum(of)
    assert interval(found) == pytest.approx(by_quadratic(found.value, np.var(shares)), abs=0.01)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.sampled_from([(0, 0), (0, 1), (1, 1)]), min_size=1, max_size=40).filter(lambda t: any(o for _, o in t))
)
def test_one_observation_a_task_is_wilsons(tasks):
    hits, of = zip(*tasks, strict=True)
    assert interval(one(hits, of)) == pytest.approx(wilson(sum(hits), sum(of)), abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 30), st.integers(2, 5), st.floats(0, 1), st.integers(0, 5))
def test_tasks_that_are_all_alike_count_as_one_trial_each(tasks, observations, share, others):
    """All right, all wrong, or the same throughout: the draws do not differ, and still nothing is certain."""
    of = [observations] * tasks + [0] * others
    found = one([share * o for o in of], of)
    assert found.value == pytest.approx(share)
    assert interval(found) == pytest.approx(wilson(share * tasks, tasks), abs=1e-9)
    assert found.high - found.low > 0.1


def test_nothing_to_measure_has_no_interval():
    for nothing in (one([], []), one([0, 0], [0, 0])):
        assert np.isnan([nothing.value, nothing.low, nothing.high]).all() and nothing.n == 0
    missing = statistics.estimates(np.array([[2.0, 0.0]]), np.array([[3.0, 0.0]]), HALVES)[0]
    assert np.isnan([missing.value, missing.low, missing.high]).all() and missing.n == 3


def test_a_task_given_over_and_over_is_no_more_evidence():
    hits, of = np.array([2, 0, 1, 3, 0, 1]), np.array([3, 1, 2, 3, 2, 1])
    assert interval(one(8 * hits, 8 * of)) == pytest.approx(interval(one(hits, of)))


def test_a_figure_does_not_hang_on_those_beside_it():
    rng = np.random.default_rng(7)
    of = rng.integers(0, 4, (30, 3)).astype(float)
    hits = np.floor(of * rng.random((30, 3)))
    weights = np.array([[1, 0, 0], [0, 0, 1], [0.5, 0.5, 0], [0, 1, -1]])
    together = statistics.estimates(hits, of, weights)
    alone = [statistics.estimates(hits[:, w != 0], of[:, w != 0], w[None, w != 0])[0] for w in weights]
    assert [interval(found) for found in together] == [pytest.approx(interval(found)) for found in alone]
    shares = hits.sum(0) / of.sum(0)
    assert [found.value for found in together] == pytest.approx(weights @ shares)


def coverage(counted, truth, tries, rng, weights=ONE):
    """Of so many worlds: (share covered, share that Wilson's interval by single observation covers)."""
    covered = []
    for _ in range(tries):
        hits, of = counted(rng)
        found, naive = statistics.estimates(hits, of, weights)[0], statistics.wilson(hits[:, 0].sum(), of[:, 0].sum())
        covered.append((found.low <= truth <= found.high, naive.low <= truth <= naive.high))
    return np.mean(covered, axis=0)


@pytest.mark.parametrize(("rate", "tasks"), [(0.3, 60), (0.02, 150)])
def test_the_interval_of_a_share_covers_the_truth_where_observations_of_a_task_are_alike(rate, tasks):
    """Tasks of differing difficulty, one to six observations each, correlated by .5."""

    def counted(rng):
        of = rng.integers(1, 7, tasks)
        return rng.binomial(of, rng.beta(rate, 1 - rate, tasks)).astype(float)[:, None], of.astype(float)[:, None]

    by_task, by_observation = coverage(counted, rate, 300, np.random.default_rng(8))
    assert 0.9 <= by_task <= 0.99
    assert by_observation < 0.86


def test_balanced_accuracy_covers_the_truth_where_a_critic_is_good_or_bad_at_a_task():
    def counted(rng):
        wrong = rng.binomial(4, rng.beta(2, 3, 80))
        of = np.stack([wrong, 4 - wrong], axis=1)
        skill = rng.random(80)  # recall is its square, specificity its root: a third, two thirds
        return rng.binomial(of, np.stack([skill**2, skill**0.5], axis=1)).astype(float), of.astype(float)

    by_task, _ = coverage(counted, 0.5, 200, np.random.default_rng(9), HALVES)
    assert 0.9 <= by_task <= 0.99


def test_a_sum_of_shares_has_the_percentiles_of_what_is_drawn():
    rng = np.random.default_rng(10)
    both = rng.integers(0, 2, (50, 2)).astype(float)
    found = statistics.estimates(both, np.ones((50, 2)), np.array([[0.25, -0.25]]))[0]
    expected = statistics.bootstrap((both[:, 0] - both[:, 1]) / 4)
    assert interval(found) == pytest.approx((expected.low, expected.high))


def test_a_sum_with_a_share_that_never_varies_is_movers_by_hand():
    """Recall 20 of 20, specificity 20 of 20, in tasks of their own: Wilson's, shrunk by √2."""
    hits = np.kron(np.eye(2), np.ones((20, 1)))
    found = statistics.estimates(hits, hits, HALVES)[0]
    assert (found.value, found.high, found.n) == (1.0, 1.0, 40)
    assert found.low == pytest.approx(1 - (1 - wilson(20, 20)[0]) / np.sqrt(2))


def test_a_difference_of_nothing_is_not_certain():
    """Neither gained nor lost on any of 50 tasks: each could be as high as Wilson says."""
    found = statistics.estimates(np.zeros((50, 2)), np.ones((50, 2)), np.array([[1.0, -1.0]]))[0]
    high = wilson(0, 50)[1]
    assert (found.value, found.low, found.high) == pytest.approx((0, -high, high))


def test_mover_by_hand():
    """Weights 1 and −½: the lower end of the second makes the upper end of the sum."""
    limits = [statistics.Interval(0.5, 0.8), statistics.Interval(0.1, 0.6)]
    found = statistics.mover(np.array([1.0, -0.5]), np.array([0.6, 0.4]), limits)
    assert found.low == pytest.approx(0.4 - np.hypot(0.1, 0.1))
    assert found.high == pytest.approx(0.4 + np.hypot(0.2, 0.15))


def test_resampling_draws_every_task_as_often_as_the_next():
    sums = statistics.resampled(np.eye(5), draws=4000)
    assert (sums.sum(axis=1) == 5).all()
    assert sums.mean(axis=0) == pytest.approx(np.ones(5), abs=0.06)
    assert sums.var(axis=0) == pytest.approx(np.full(5, 0.8), abs=0.08)  # multinomial: 5 · ⅕ · ⅘
