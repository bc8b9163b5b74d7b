"""Shapley's axioms, and the formula against its other definition: the mean over orders of arrival."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from apps.credit import games

VALUES = st.floats(-10, 10, allow_nan=False, width=32)


@st.composite
def tables(draw, most: int = 4, count: int = 1):
    """`count` games of the same number of players, and that number."""
    n = draw(st.integers(1, most))
    return n, *(draw(arrays(np.float64, 2**n, elements=VALUES)) for _ in range(count))


def by_permutations(values: np.ndarray, n: int) -> list[float]:
    """φ as the mean of v(S ∪ i) − v(S) over all orders in which the players may arrive."""
    shares, orders = [0.0] * n, list(permutations(range(n)))
    for order in orders:
        coalition = 0
        for player in order:
            shares[player] += values[coalition | 1 << player] - values[coalition]
            coalition |= 1 << player
    return [share / len(orders) for share in shares]


def test_the_check_value():
    """solver = bit 0, critic = bit 1, reviser = bit 2."""
    phi = games.shapley(np.array([0, 0.5, 0, 0.7, 0, 0.6, 0, 1]))
    assert phi == pytest.approx([0.716667, 0.166667, 0.116667], abs=1e-6)


@settings(deadline=None)
@given(tables())
def test_equals_the_mean_over_permutations(game):
    n, values = game
    assert games.shapley(values) == pytest.approx(by_permutations(values, n), abs=1e-9)


@settings(deadline=None)
@given(tables(most=6))
def test_efficiency(game):
    _, values = game
    phi = games.shapley(values)
    assert phi.sum() == pytest.approx(values[-1] - values[0], abs=1e-9)
    assert games.residual(values, phi) == pytest.approx(0, abs=1e-9)


@settings(deadline=None)
@given(tables(), st.floats(0.1, 5))
def test_the_residual_is_what_was_missed(game, missed):
    _, values = game
    phi = games.shapley(values)
    phi[0] += missed
    assert games.residual(values, phi) == pytest.approx(missed, abs=1e-9)


@settings(deadline=None)
@given(tables(most=5), st.data())
def test_symmetry_renaming_players_renames_values(game, data):
    n, values = game
    order = data.draw(st.permutations(range(n)))
    renamed = np.array([values[sum(1 << order[i] for i in range(n) if mask >> i & 1)] for mask in range(2**n)])
    assert games.shapley(renamed) == pytest.approx(games.shapley(values)[list(order)], abs=1e-9)


@settings(deadline=None)
@given(tables(most=5), st.floats(-3, 3))
def test_dummy_is_worth_what_it_always_adds(game, adds):
    """A new player that adds the same to every coalition gets just that, and changes nobody's value."""
    _, values = game
    with_dummy = np.concatenate([values, values + adds])
    assert games.shapley(with_dummy) == pytest.approx([*games.shapley(values), adds], abs=1e-9)


@settings(deadline=None)
@given(tables(count=2), VALUES, VALUES)
def test_linearity(game, a, b):
    _, one, other = game
    mixed = games.shapley(a * one + b * other)
    assert mixed == pytest.approx(a * games.shapley(one) + b * games.shapley(other), abs=1e-7)


@settings(deadline=None)
@given(tables(count=3))
def test_many_games_at_once_are_each_by_itself(game):
    _, *several = game
    together = games.shapley(np.stack(several)[:, None])
    assert together[:, 0] == pytest.approx(np.stack([games.shapley(values) for values in several]))


def test_variance_of_a_two_player_game_by_hand():
    """φ_0 = ½(v1 − v0) + ½(v3 − v2), so its variance is the sum of the variances over 4; likewise φ_1."""
    assert games.shapley_variance(np.array([0.04, 0.08, 0.12, 0.0])) == pytest.approx([0.06, 0.06])


def test_variance_agrees_with_the_spread_of_simulated_games():
    rng = np.random.default_rng(0)
    spread = np.linspace(0.1, 1.0, 8)
    phi = games.shapley(rng.normal(0, spread, (40_000, 8)))
    assert phi.var(axis=0) == pytest.approx(games.shapley_variance(spread**2), rel=0.05)


@pytest.mark.parametrize("size", [0, 3, 6, 2**17])
def test_a_table_that_is_no_game_is_refused(size):
    with pytest.raises(ValueError, match="2\\*\\*n"):
        games.shapley(np.zeros(size))
