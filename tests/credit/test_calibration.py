"""What a judge's word is worth: hand-worked numbers, a simulation with a known judge, and laws."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from apps.credit import calibration
from apps.credit.calibration import Calibration

share = st.floats(0.02, 0.98)
measured = st.builds(
    Calibration, sensitivity=share, specificity=share, prevalence=share, right=st.just(50), wrong=st.just(50)
)
looks = st.integers(1, 8).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


def judge(sensitivity=0.9, specificity=0.8, prevalence=0.5, cases=100):
    return Calibration(
        sensitivity=sensitivity, specificity=specificity, prevalence=prevalence, right=cases, wrong=cases
    )


def test_rogan_and_gladen_by_hand():
    """Of 100 cases 30 are right; 27 of them and 14 of the other 70 are called right: 41 %."""
    assert calibration.rogan_gladen(0.41, 0.9, 0.8, 0.5) == pytest.approx(0.3)
    assert calibration.rogan_gladen(0.1, 0.9, 0.8, 0.5) == 0  # fewer than the false alarms alone: clipped
    assert calibration.rogan_gladen(0.95, 0.9, 0.8, 0.5) == 1
    assert calibration.rogan_gladen(0.7, 0.5, 0.5, 0.25) == 0.25  # a coin: only what was verified is known


def test_the_chance_is_the_predictive_value():
    """27 of the 41 that are called right are, and 3 of the 59 that are called wrong."""
    one = judge(prevalence=0.3)
    assert calibration.chance(1, 1, one) == pytest.approx(27 / 41)
    assert calibration.chance(0, 1, one) == pytest.approx(3 / 59)


def test_a_judge_without_a_calibration_is_taken_at_its_word():
    assert calibration.chance(3, 4, None) == 0.75
    assert 0 < calibration.spread(4, 4, None) < calibration.spread(2, 4, None)


def test_the_tally_gives_back_the_judge_it_came_from():
    """Verified: half of 4000 cases, of which the unverified ones are more often right than the verified."""
    rng = np.random.default_rng(0)
    tally = Counter()
    for known, prevalence in ((True, 0.3), (False, 0.7)):
        right = rng.random(20_000) < prevalence
        yes = rng.random(20_000) < np.where(right, 0.8, 0.3)
        tally += Counter((int(y), 1, bool(r) if known else None) for y, r in zip(yes, right, strict=True))
    found = calibration.fit(tally)
    assert found.sensitivity == pytest.approx(0.8, abs=0.01)
    assert found.specificity == pytest.approx(0.7, abs=0.01)
    assert found.prevalence == pytest.approx(0.5, abs=0.02)
    assert found.right + found.wrong == 20_000


def test_shards_are_merged_before_they_are_applied():
    shards = [Counter({(1, 1, True): 8, (0, 1, False): 1}), Counter({(0, 1, True): 2, (1, 1, False): 9})]
    whole = calibration.fit(shards[0] + shards[1])
    assert whole.sensitivity == pytest.approx(8.5 / 11) and whole.specificity == pytest.approx(1.5 / 11)
    assert calibration.fit(shards[0]).sensitivity == pytest.approx(8.5 / 9)


@pytest.mark.parametrize("tally", [Counter(), Counter({(1, 1, True): 5}), Counter({(1, 1, None): 5, (0, 1, False): 2})])
def test_a_rate_without_cases_is_not_made_up(tally):
    assert calibration.fit(tally) is None


def test_replies_that_said_nothing_count_nowhere():
    tally = Counter({(1, 1, True): 3, (0, 1, False): 3})
    assert calibration.fit(tally + Counter({(0, 0, True): 50, (0, 0, None): 7})) == calibration.fit(tally)


@given(measured, looks)
def test_what_a_judge_says_moves_the_chance_as_far_as_it_can_be_trusted(one, said):
    p = calibration.chance(*said, one)
    assert 0 <= p <= 1 and calibration.spread(*said, one) >= 0
    full = calibration.chance(said[1], said[1], one)
    none = calibration.chance(0, said[1], one)
    better = one.sensitivity + one.specificity - 1
    assume(abs(better) > 1e-3)
    assert (full - none) * better > 0  # a judge that lies more often than not is believed the other way round
    assert min(full, none) - 1e-9 <= p <= max(full, none) + 1e-9


@given(share, looks, share)
def test_a_coin_changes_no_mind(sensitivity, said, prevalence):
    one = Calibration(sensitivity=sensitivity, specificity=1 - sensitivity, prevalence=prevalence, right=50, wrong=50)
    assert calibration.chance(*said, one) == pytest.approx(prevalence)


@given(measured, st.integers(1, 8))
def test_more_looks_that_agree_are_no_more_evidence_but_less_noise(one, count):
    assert calibration.chance(count, count, one) == pytest.approx(calibration.chance(1, 1, one))
    assert calibration.spread(count, count, one) <= calibration.spread(1, 1, one) + 1e-12


@pytest.mark.parametrize(("count", "share"), [(40, 0.6), (5000, 0.1), (5000, 0.9)])
def test_the_standard_error_is_that_of_a_simulation(count, share):
    """Looks and rates drawn anew: the delta method's spread is theirs, whether the looks or the rates leave the doubt."""
    rng = np.random.default_rng(1)
    one, cases = Calibration(sensitivity=0.8, specificity=0.6, prevalence=0.4, right=200, wrong=400), (200, 400)
    yes = rng.binomial(count, share, 4000)
    rates = rng.binomial(cases, [0.8, 0.6], (4000, 2)) / cases
    drawn = [
        calibration.chance(int(y), count, judge(float(a), float(b), 0.4)) for y, (a, b) in zip(yes, rates, strict=True)
    ]
    assert np.std(drawn) == pytest.approx(calibration.spread(round(share * count), count, one), rel=0.08)


def test_calibration_lowers_the_brier_score_of_a_judge_that_is_too_sure():
    tally = Counter({(1, 1, True): 60, (0, 1, True): 40, (1, 1, False): 45, (0, 1, False): 55})
    one = calibration.fit(tally)
    assert calibration.brier(tally, None) == pytest.approx(85 / 200)
    assert calibration.brier(tally, one) < 0.25 < calibration.brier(tally, None)
    assert calibration.brier(Counter(), None) is None


def test_the_reliability_table_counts_every_verified_case():
    tally = Counter({(1, 1, True): 60, (0, 1, True): 40, (1, 1, False): 45, (0, 1, False): 55, (1, 1, None): 9})
    table = calibration.reliability(tally, None)
    assert table == [
        {"cases": 95, "chance": 0.0, "right": pytest.approx(40 / 95)},
        {"cases": 105, "chance": 1.0, "right": pytest.approx(60 / 105)},
    ]
    del tally[1, 1, None]
    calibrated = calibration.reliability(tally, calibration.fit(tally))
    assert sum(row["cases"] for row in calibrated) == 200 and all(
        row["chance"] == pytest.approx(row["right"], abs=0.02) for row in calibrated
    )
