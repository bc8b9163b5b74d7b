"""The contest of estimators: figures that are what they are called, and the findings that must come out."""

from __future__ import annotations

import json

import numpy as np
import pytest

from apps.fidelity import contest, known_games

SMALL = contest.Options(budgets=(160, 640), seeds=16, teams=4, couplings=(0.5,))


@pytest.fixture(scope="module")
def found() -> dict:
    return contest.run(SMALL)


def cell(shares, evaluations, *, estimator="plain", errors=0.0, budget=10, draws="fresh") -> contest.Cell:
    """Of the additive game of two players worth 1 and 2."""
    shares = np.array(shares, dtype=float)
    game = known_games.additive([1, 2])
    return contest.Cell(game, estimator, draws, budget, 1.0, shares, shares * 0 + errors, np.array(evaluations))


def test_a_row_by_hand():
    """Seeds miss by (.3, −.1) and (0, .4): squares .09, .01, 0, .16; sums off by .2 and .4."""
    row = cell([[1.3, 1.9], [1.0, 2.4]], [10, 20], errors=0.16).row()
    assert row["rmse"] == pytest.approx((0.26 / 4) ** 0.5)
    assert row["max_error"] == pytest.approx((0.3 + 0.4) / 2)
    assert row["residual"] == pytest.approx((0.2 + 0.4) / 2)
    assert row["evaluations"] == 15
    assert row["coverage"] == 0.75  # 1.96 · .16 = .3136: all but .4


def test_a_ratio_is_of_evaluations_for_the_same_error():
    """Half the error at the same cost needs a quarter of the evaluations; the same error at half the cost, half."""
    plain = cell([[1.4, 2.4], [0.6, 1.6]], [10, 10])
    halved = cell([[1.2, 2.2], [0.8, 1.8]], [10, 10], estimator="antithetic")
    cheaper = cell([[1.4, 2.4], [0.6, 1.6]], [5, 5], estimator="stratified")
    ratios = {row["estimator"]: row["ratio"] for row in contest.compared([plain, halved, cheaper])}
    assert ratios == {"antithetic": pytest.approx(0.25), "stratified": pytest.approx(0.5)}


def test_the_error_of_a_ratio_by_hand():
    """3/2, with deviations 1 − 1.5 · 1 = −.5 and 5 − 1.5 · 3 = .5: standard deviation √.5, over √2 and the mean 2."""
    ratio, error = contest.ratio_of_means(np.array([1.0, 5.0]), np.array([1.0, 3.0]))
    assert (ratio, error) == (1.5, pytest.approx(0.25))


def test_slopes_by_hand():
    """Four times the evaluations, half the error."""
    cells = [cell([[1.4, 2.4]] * 4, [10] * 4), cell([[1.2, 2.2]] * 4, [40] * 4, budget=40)]
    assert contest.slopes(cells)["plain, fresh"] == {
        "mean": pytest.approx(-0.5), "low": pytest.approx(-0.5), "high": pytest.approx(-0.5), "games": 1
    }  # fmt: skip


def test_a_loss_is_told_only_where_it_is_certain():
    plain = cell([[1.4, 2.4], [0.6, 1.6]], [10, 10])
    worse = cell([[1.8, 2.8], [0.2, 1.2]], [10, 10], estimator="antithetic")
    doubtful = cell([[2.2, 3.2], [1.0, 2.0]], [10, 10], estimator="stratified")
    (lost,) = contest.losses([plain, worse, doubtful])
    assert (lost["estimator"], lost["ratio"]) == ("antithetic", pytest.approx(4))


def test_all_is_json(found):
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert set(found) == {"rows", "slopes", "halving", "losses"}


def test_every_game_meets_every_estimator(found):
    met = {}
    for row in found["rows"]:
        met.setdefault((row["game"], row["noisy"]), set()).add((row["estimator"], row["draws"]))
    assert len(met) == 11 + SMALL.teams
    sampled = {(s, d) for s in contest.SCHEMES for d in ("once", "fresh")}
    for (_, noisy), estimators in met.items():
        expected = {(s, d) for s in contest.SCHEMES for d in ("fresh", "common")} | {("adaptive", "common")}
        assert estimators >= (expected if noisy else sampled | {("table", "once")})


def test_the_formula_on_the_table_is_exact(found):
    exact = [row for row in found["rows"] if (row["estimator"], row["noisy"]) == ("table", False)]
    assert len(exact) == 11 and max(row["max_error"] for row in exact) < 1e-9


def test_no_estimate_takes_more_than_its_budget(found):
    rows = [row for row in found["rows"] if row["estimator"] != "table"]
    assert all(row["evaluations"] <= row["budget"] for row in rows)


def test_monte_carlo_error_falls_as_one_over_the_root(found):
    for name, fitted in found["slopes"].items():
        assert fitted["mean"] == pytest.approx(-0.5, abs=0.1), name


def test_common_random_numbers_and_pairs_need_less_than_half_the_evaluations(found):
    halving = found["halving"]
    assert halving["median"] == halving["medians"]["antithetic, common"] < halving["target"] == 0.5
    assert halving["median"] == pytest.approx(np.median([game["ratio"] for game in halving["games"]]))
    assert halving["medians"]["antithetic, fresh"] > 0.6  # it is the common numbers that save
    assert halving["median"] < halving["medians"]["antithetic, common, coupling 0.5"]
    assert halving["medians"]["table, common"] < 0.7 * halving["medians"]["table, fresh"]  # the table gains by them too


def test_reverses_are_wasted_on_a_vote_of_equals(found):
    """In a majority of an odd number the player in the middle turns an order and its reverse alike."""
    lost = {(row["game"], row["estimator"]): row for row in found["losses"]}
    assert lost["majority", "antithetic"]["ratio"] == pytest.approx(2, abs=0.4)


def test_intervals_hold_in_noisy_teams(found):
    rows = [row for row in found["rows"] if row["noisy"] and row["coupling"] == 1]
    for name in ("plain", "antithetic", "stratified", "adaptive", "table"):
        assert np.mean([row["coverage"] for row in rows if row["estimator"] == name]) > 0.9, name


def test_adaptive_ends_before_its_budget(found):
    rows = [row for row in found["rows"] if row["estimator"] == "adaptive"]
    assert all(row["evaluations"] < row["budget"] for row in rows)
    assert max(row["rmse"] for row in rows) < SMALL.width / 2
