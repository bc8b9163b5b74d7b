"""Estimates from orders of arrival: what is asked, what is made of the answers, when it ends, and whether errors are true."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.credit import estimators
from apps.records import MeritError
from tests.credit import brute_force

SCHEMES, DRAWS = ("plain", "antithetic", "stratified"), ("once", "fresh", "common")
PER_UNIT = {"plain": lambda n: 1, "antithetic": lambda n: 2, "stratified": lambda n: n}


def table_of(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(2**n)


def asked_of(asking, value) -> tuple[list[tuple[int, int]], list[int], estimators.Estimate]:
    """Every (mask, draw) asked for, how many in each wave, and the estimate."""
    log, waves = [], []

    def noted(masks, draws):
        log.extend(zip(masks.tolist(), draws.tolist(), strict=True))
        waves.append(len(masks))
        return value(masks, draws)

    found = estimators.drive(asking, noted)
    return log, waves, found


def coins(values: np.ndarray, seed: int):
    """An oracle of right and wrong: the random number of a draw is the same for all coalitions."""

    numbers = np.random.default_rng(seed).random(20_000)
    return lambda masks, draws: (numbers[draws] < values[masks]).astype(float)


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(SCHEMES), st.sampled_from(DRAWS), st.integers(1, 6), st.integers(0, 300), st.integers(1, 40),
    st.booleans(),
)  # fmt: skip
def test_the_budget_is_kept_and_nothing_is_asked_twice(scheme, draws, n, more, wave, given_whole):
    values, full = table_of(n), 2**n - 1
    budget = PER_UNIT[scheme](n) * (n + 1) + more
    known = {full: values[full]} if given_whole else {}
    asking = estimators.estimate(n, scheme, draws, budget=budget, wave=wave, known=known)
    log, _, found = asked_of(asking, lambda masks, _: values[masks])
    assert len(log) == len(set(log)) == found.evaluations <= budget
    assert not {mask for mask, _ in log} & set(known)
    assert found.values.sum() == pytest.approx(values[-1] - values[0], abs=1e-9)
    assert found.residual == pytest.approx(0, abs=1e-9)
    if draws != "once":  # a whole unit more would not have fitted
        assert budget - found.evaluations < PER_UNIT[scheme](n) * (n + 1)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("draws", DRAWS)
def test_a_larger_budget_goes_on_and_waves_change_nothing(scheme, draws):
    values = table_of(6)
    logs = {}
    for budget, wave in ((100, 3), (300, 3), (300, 16)):
        asking = estimators.estimate(6, scheme, draws, budget=budget, wave=wave, seed=5)
        logs[budget, wave], _, found = asked_of(asking, lambda masks, _: values[masks])
    assert logs[300, 3] == logs[300, 16]
    assert logs[300, 3][: len(logs[100, 3])] == logs[100, 3]
    again = estimators.drive(
        estimators.estimate(6, scheme, draws, budget=300, wave=3, seed=5), lambda masks, _: values[masks]
    )
    assert again.values.tolist() == pytest.approx(found.values.tolist(), abs=1e-12)


def test_another_seed_takes_other_orders():
    logs = [
        asked_of(estimators.estimate(6, "plain", budget=70, seed=seed), lambda m, d: np.zeros(len(m)))[0]
        for seed in (0, 1)
    ]
    assert logs[0] != logs[1]


def chains(log: list[tuple[int, int]], n: int) -> list[list[int]]:
    """The orders that fresh evaluations tell of: n + 1 masks each, ∅ first."""
    rows = [[mask for mask, _ in log[start : start + n + 1]] for start in range(0, len(log), n + 1)]
    for row in rows:
        assert row[0] == 0 and all(bin(a ^ b).count("1") == 1 and a < b for a, b in zip(row[:-1], row[1:], strict=True))
    return [[(a ^ b).bit_length() - 1 for a, b in zip(row[:-1], row[1:], strict=True)] for row in rows]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_units_are_what_they_are_called(scheme):
    n = 5
    log, _, _ = asked_of(estimators.estimate(n, scheme, "fresh", budget=600), lambda m, d: np.zeros(len(m)))
    orders = chains(log, n)
    assert all(sorted(order) == list(range(n)) for order in orders)
    size = PER_UNIT[scheme](n)
    units = [orders[start : start + size] for start in range(0, len(orders), size)]
    if scheme == "antithetic":
        assert all(back == there[::-1] for there, back in units)
    if scheme == "stratified":
        assert all(sorted(order[place] for order in unit) == list(range(n)) for unit in units for place in range(n))
    assert len({tuple(unit[0]) for unit in units}) > len(units) / 2


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_estimate_and_its_errors_against_a_reference(scheme):
    """Made again from the log, order by order, in plain Python: a unit counts once, however many orders it has."""
    n, rng = 4, np.random.default_rng(1)
    answers: list[float] = []

    def value(masks, _):
        answers.extend(came := rng.random(len(masks)))
        return came

    log, _, found = asked_of(estimators.estimate(n, scheme, "fresh", budget=200, span=0), value)
    shares = []
    for number, order in enumerate(chains(log, n)):
        share, came = [0.0] * n, answers[number * (n + 1) : (number + 1) * (n + 1)]
        for place, player in enumerate(order):
            share[player] = came[place + 1] - came[place]
        shares.append(share)
    size = PER_UNIT[scheme](n)
    units = [shares[start : start + size] for start in range(0, len(shares), size)]
    assert found.orders == len(shares)
    for player in range(n):
        means = [statistics.fmean(share[player] for share in unit) for unit in units]
        assert found.values[player] == pytest.approx(statistics.fmean(means))
        assert found.errors[player] == pytest.approx(statistics.stdev(means) / len(means) ** 0.5)


def test_fresh_draws_are_never_the_same():
    log, _, _ = asked_of(estimators.estimate(5, "plain", "fresh", budget=600), lambda m, d: np.zeros(len(m)))
    assert len({draw for _, draw in log}) == len(log) == 600


@pytest.mark.parametrize(("scheme", "orders"), [("plain", 1), ("antithetic", 2), ("stratified", 1)])
def test_common_draws_are_shared_by_an_order_and_by_its_reverse(scheme, orders):
    n, budget = 5, 360
    log, _, found = asked_of(estimators.estimate(n, scheme, "common", budget=budget), lambda m, d: np.zeros(len(m)))
    by_draw: dict[int, list[int]] = {}
    for mask, draw in log:
        by_draw.setdefault(draw, []).append(mask)
    assert len(by_draw) == found.orders // orders
    whole = {"plain": n + 1, "antithetic": 2 * n, "stratified": n + 1}[scheme]  # ∅ and N once
    assert {0, 2**n - 1} <= set.intersection(*map(set, by_draw.values()))
    assert max(map(len, by_draw.values())) == whole


def test_draws_of_later_waves_are_new_ones():
    log, waves, _ = asked_of(
        estimators.estimate(4, "antithetic", "common", budget=80, wave=2), lambda m, d: np.zeros(len(m))
    )
    first, rest = {d for _, d in log[: waves[0]]}, {d for _, d in log[waves[0] :]}
    assert len(waves) > 2 and not first & rest


@pytest.mark.parametrize("scheme", SCHEMES)
def test_worth_that_merely_adds_up_is_exact_from_the_first_order(scheme):
    worth = np.array([3.0, -1, 0, 2, 5])
    values = np.array([sum(worth[i] for i in range(5) if mask >> i & 1) for mask in range(32)])
    found = estimators.drive(estimators.estimate(5, scheme, "fresh", budget=30, span=0), lambda masks, _: values[masks])
    assert found.values == pytest.approx(worth)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_game_that_becomes_known_whole_is_exact(scheme):
    values = table_of(5)
    known = {0: values[0], 31: values[31]}
    found = estimators.drive(
        estimators.estimate(5, scheme, "once", budget=100, known=known), lambda masks, _: values[masks]
    )
    assert found.evaluations == 30
    assert found.values == pytest.approx(brute_force.of_table(values, 5))
    assert not found.errors.any() and found.width == 0


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("draws", ["fresh", "common"])
def test_estimates_are_unbiased_and_their_intervals_hold(scheme, draws):
    values = table_of(4, seed=3)
    truth = np.array(brute_force.of_table(values, 4))
    found = [
        estimators.drive(estimators.estimate(4, scheme, draws, budget=120, seed=seed), coins(values, seed))
        for seed in range(200)
    ]
    mean = np.mean([e.values for e in found], axis=0)
    spread = np.std([e.values for e in found], axis=0, ddof=1)
    assert np.abs(mean - truth).max() < 4 * spread.max() / 200**0.5
    covered = np.mean([np.abs(e.values - truth) <= estimators.Z * e.errors for e in found])
    assert 0.91 < covered <= 1
    assert 0.8 < (np.mean([e.errors for e in found], axis=0) / spread).mean() < 1.7


def test_common_random_numbers_cancel():
    """v rises with the coalition, so under common numbers no player's contribution is ever negative."""
    values = np.array([bin(mask).count("1") for mask in range(32)]) / 6 + 0.1
    spread = {}
    for draws in ("fresh", "common"):
        found = [
            estimators.drive(estimators.estimate(5, "plain", draws, budget=120, seed=s), coins(values, s)).values
            for s in range(60)
        ]
        spread[draws] = np.std(found, axis=0).mean()
    assert spread["common"] < 0.7 * spread["fresh"]


def test_adaptive_ends_when_intervals_are_narrow_and_not_before():
    values, spent = table_of(4, seed=2), []
    for width in (0.8, 0.4, 0.2):
        asking = estimators.estimate(4, budget=100_000, width=width, wave=8)
        _, waves, found = asked_of(asking, coins(values, 0))
        assert found.width <= width
        before = estimators.estimate(4, budget=sum(waves[:-1]), wave=8)
        if len(waves) > 1:
            assert estimators.drive(before, coins(values, 0)).width > width
        spent.append(found.evaluations)
    assert spent[0] < spent[1] < spent[2]


def test_adaptive_ends_with_its_budget_where_the_width_is_out_of_reach():
    found = estimators.drive(estimators.estimate(4, budget=200, width=0.001), coins(table_of(4), 0))
    assert found.evaluations <= 200 and found.width > 0.001


def test_replays_that_agree_by_chance_do_not_pass_for_certain():
    """All wrong in a few plays is no proof of worthlessness: the interval is narrow only after many."""
    widths = [
        estimators.drive(estimators.estimate(3, budget=budget), lambda m, d: np.zeros(len(m))).width
        for budget in (12, 60, 600)
    ]
    assert widths[0] > 0.5 and widths[0] > widths[1] > widths[2] > 0


def test_standard_errors_by_hand():
    """Units 0 and 1: the plain error is √(½/2); with two more ½ from the mean, √(1/3/2). One unit, two more: √(½/2)."""
    assert estimators.standard_errors(np.array([[0.0], [1.0]]), 0) == pytest.approx([0.5])
    assert estimators.standard_errors(np.array([[0.0], [1.0]]), 1) == pytest.approx([(1 / 6) ** 0.5])
    assert estimators.standard_errors(np.array([[0.3]]), 1) == pytest.approx([0.5])
    assert estimators.standard_errors(np.array([[0.3]]), 0).tolist() == [np.inf]


def test_large_teams():
    """30 players that vote, each with one vote: φ is 1/30; and 62, the last that a mask holds."""
    found = estimators.drive(
        estimators.estimate(30, "stratified", "once", budget=6000),
        lambda masks, _: np.array([float(bin(mask).count("1") > 15) for mask in masks.tolist()]),
    )
    assert found.values == pytest.approx(np.full(30, 1 / 30))  # by position: each pivots once a unit
    found = estimators.drive(
        estimators.estimate(62, "plain", "once", budget=630), lambda masks, _: (masks >> 61 & 1).astype(float)
    )
    assert found.values == pytest.approx([0] * 61 + [1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scheme": "antithetik"}, "did you mean 'antithetic'"),
        ({"draws": "comon"}, "did you mean 'common'"),
        ({"n": 63}, "1 to 62 players, given 63"),
        ({"n": 0}, "1 to 62 players, given 0"),
        ({"wave": 0}, "at least 1 unit"),
        ({"scheme": "stratified", "budget": 19}, "19 evaluations is less than one unit, 4 orders of 4 players"),
    ],
)
def test_what_cannot_be_estimated_is_refused_before_anything_is_asked(change, message):
    asking = estimators.estimate(**{"n": 4, "scheme": "plain", "draws": "fresh", "budget": 100, **change})
    with pytest.raises(MeritError, match=message):
        next(asking)


def test_answers_that_are_none():
    with pytest.raises(MeritError, match="draw 0, has no finite value"):
        estimators.drive(estimators.estimate(3, budget=100), lambda m, d: np.where(m == 7, np.nan, 0.0))
    with pytest.raises(ValueError, match=r"values of shape \(1,\) came"):
        estimators.drive(estimators.estimate(3, budget=100), lambda m, d: np.zeros(1))
