"""AUC and Brier score against definitions written out, and intervals that draw whole tasks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.reward_model import figures

cases = st.lists(st.tuples(st.integers(0, 10), st.booleans()), min_size=1, max_size=30)


def by_pairs(scores, good):
    """The definition: every good step against every bad one."""
    pairs = [
        (a > b) + (a == b) / 2
        for a, g in zip(scores, good, strict=True)
        if g
        for b, h in zip(scores, good, strict=True)
        if not h
    ]
    return sum(pairs) / len(pairs) if pairs else None


@given(cases)
def test_auc_is_its_definition(given_cases):
    scores, good = np.array([s / 10 for s, _ in given_cases]), np.array([g for _, g in given_cases])
    found = figures.auc(np.arange(len(scores)), scores, good)
    assert found["value"] == pytest.approx(by_pairs(scores.tolist(), good.tolist()))


def test_auc_by_hand():
    unit, good = np.arange(4), np.array([False, True, False, True])
    assert figures.auc(unit, np.array([0.1, 0.2, 0.3, 0.4]), good)["value"] == 0.75
    assert figures.auc(unit, np.array([0.4, 0.3, 0.2, 0.1]), good)["value"] == 0.25
    assert figures.auc(unit, np.array([0.5] * 4), good)["value"] == 0.5


def test_figures_by_hand():
    found = figures.figures(["a", "a", "b", "b"], np.array([0.0, 1.0, 0.5, 0.5]), np.array([0.0, 0.5, 0.5, 1.0]))
    assert found["steps"] == 4 and found["good"] == 0.25
    assert found["brier"]["value"] == pytest.approx((0 + 0.25 + 0 + 0.25) / 4)
    assert found["brier_of_the_mean"]["value"] == pytest.approx(0.125)
    assert figures.figures(["a"], np.array([0.2]), np.array([1.0]))["auc"]["value"] is None


def test_nothing_to_appraise_has_no_figures():
    found = figures.figures([], np.zeros(0), np.zeros(0))
    assert found["steps"] == 0 and found["auc"]["value"] is None and found["brier"]["value"] is None


def test_an_interval_draws_tasks_and_not_steps():
    """Ten copies of each step say no more than one."""
    rng = np.random.default_rng(0)
    scores = rng.random(40)
    good = rng.random(40) < scores
    tasks = [str(i) for i in range(40)]
    once = figures.figures(tasks, scores, good.astype(float))
    often = figures.figures(tasks * 10, np.tile(scores, 10), np.tile(good.astype(float), 10))
    for name in ("auc", "brier"):
        assert often[name] == pytest.approx(once[name])
        assert once[name]["low"] < once[name]["value"] < once[name]["high"]


def test_the_interval_of_auc_covers():
    """Scores of good steps are normal about 1, of bad ones about 0: AUC = Φ(1/√2) = .760."""
    rng, covered = np.random.default_rng(1), 0
    for _ in range(40):
        good = rng.random(80) < 0.5
        scores = 1 / (1 + np.exp(-(rng.normal(size=80) + good)))
        found = figures.auc(np.arange(80), scores, good)
        covered += found["low"] <= 0.7602 <= found["high"]
    assert 34 <= covered <= 40
