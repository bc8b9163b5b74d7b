"""Agreement, kappa and the ordering of pairs: by hand, by their definitions, and intervals that draw whole prompts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.preference import agreement, figures

labels = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40)


def units(count):
    return [str(i) for i in range(count)]


def test_kappa_by_hand():
    """Cohen's own way: of 50 pairs both say the first in 20 and the second in 15: p_o = .7, p_e = .5·.6 + .5·.4, so .4."""
    said = np.array([1] * 25 + [0] * 25, float)
    truth = np.array([1] * 20 + [0] * 5 + [1] * 10 + [0] * 15, float)
    found = agreement.figures(units(50), said, truth)
    assert found["agreement"]["value"] == pytest.approx(0.7) and found["kappa"]["value"] == pytest.approx(0.4)
    assert found["kappa"]["low"] < 0.4 < found["kappa"]["high"]


@given(labels)
def test_kappa_is_its_definition(given_labels):
    said, truth = (np.array(column, float) for column in zip(*given_labels, strict=True))
    agree, p, q = np.mean(said == truth), said.mean(), truth.mean()
    chance = p * q + (1 - p) * (1 - q)
    found = agreement.figures(units(len(said)), said, truth)
    assert found["agreement"]["value"] == pytest.approx(agree)
    if chance < 1:
        assert found["kappa"]["value"] in (None, pytest.approx((agree - chance) / (1 - chance)))
    flipped = agreement.figures(units(len(said)), 1 - said, truth)
    assert flipped["agreement"]["value"] == pytest.approx(1 - agree)


def test_no_preference_agrees_by_half():
    found = agreement.figures(units(2), np.array([0.5, 0.9]), np.array([1.0, 1.0]))
    assert found["agreement"]["value"] == 0.75


def test_orders_that_disagree_are_told():
    orders = np.array([[0.9, 0.8], [0.9, 0.1], [0.2, 0.3]])
    found = agreement.figures(units(3), orders.mean(axis=1), np.array([1.0, 1.0, 0.0]), orders)
    assert found["same_in_both_orders"]["value"] == pytest.approx(2 / 3)
    assert found["prefers_the_first_place"]["value"] == pytest.approx((0.9 + 0.2 + 0.9 + 0.9 + 0.2 + 0.7) / 6)


def test_copies_of_a_prompts_pairs_say_no_more():
    rng = np.random.default_rng(0)
    said, truth = rng.random(40), (rng.random(40) < 0.5).astype(float)
    once = agreement.figures(units(40), said, truth)["agreement"]
    often = agreement.figures(units(40) * 5, np.tile(said, 5), np.tile(truth, 5))["agreement"]
    assert often == pytest.approx(once)


SCORES = np.array([[2.0, 1.0], [0.0, 3.0], [1.0, 1.0], [4.0, 0.0]])
PREFERRED = np.array([1.0, 1.0, 0.0, 1.0])


def test_pairs_by_hand():
    found = figures.figures(units(4), SCORES, PREFERRED)
    assert found["accuracy"]["value"] == pytest.approx((1 + 0 + 0.5 + 1) / 4)
    chances = [1 / (1 + math.exp(-d)) for d in (1, -3, 0, 4)]
    assert found["brier"]["value"] == pytest.approx(np.mean([(1 - p) ** 2 for p in chances]))
    better, worse = [2.0, 0.0, 1.0, 4.0], [1.0, 3.0, 1.0, 0.0]
    auc = np.mean([(a > b) + (a == b) / 2 for a in better for b in worse])
    assert found["auc"]["value"] == pytest.approx(auc)
    assert found["margin"] == pytest.approx((1 - 3 + 0 + 4) / 4)


def test_the_order_of_a_pair_changes_nothing():
    turned = figures.figures(units(4), SCORES[:, ::-1].copy(), 1 - PREFERRED)
    straight = figures.figures(units(4), SCORES, PREFERRED)
    assert all(turned[name] == pytest.approx(straight[name]) for name in straight)


def test_odds_that_are_true_are_calibrated_and_boasts_are_not():
    rng = np.random.default_rng(3)
    apart = rng.normal(size=6000) * 2
    won = (rng.random(6000) < 1 / (1 + np.exp(-apart))).astype(float)
    clusters = [str(i % 50) for i in range(6000)]
    told = [
        figures.figures(clusters, np.stack([k * apart, np.zeros(6000)], axis=1), won)["calibration_error"]["value"]
        for k in (1.0, 4.0)
    ]
    assert told[0] < 0.03 < 0.1 < told[1]


def test_pairs_of_like_length_have_a_figure_of_their_own():
    lengths = np.array([[10, 11], [10, 30], [5, 5], [10, 12.1]])
    found = figures.figures(units(4), SCORES, PREFERRED, lengths)
    assert found["accuracy_of_like_length"]["value"] == pytest.approx((1 + 0.5) / 2)
    far = figures.figures(units(4), SCORES, PREFERRED, lengths * [[1, 9]])
    assert far["accuracy_of_like_length"]["value"] is None


def test_the_table_has_a_column_a_scorer():
    found = {name: figures.figures(units(4), SCORES, PREFERRED) for name in ("reward model", "the longer text")}
    lines = figures.table(found).splitlines()
    assert lines[0].startswith("4 held-out pairs") and "the longer text" in lines[0]
    assert "0.625 [" in lines[1] and lines[2].split()[-1] == "-"
