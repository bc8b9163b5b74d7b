"""Axioms, and each index against its other definition: means over orders of arrival, or sums over sets of players."""

from __future__ import annotations

from itertools import combinations, permutations
from math import factorial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from apps.credit import games
from tests.credit import brute_force

VALUES = st.floats(-10, 10, allow_nan=False, width=32)


@st.composite
def tables(draw, most: int = 4, count: int = 1):
    """`count` games of the same number of players, and that number."""
    n = draw(st.integers(1, most))
    return n, *(draw(arrays(np.float64, 2**n, elements=VALUES)) for _ in range(count))


def test_the_check_value():
    """solver = bit 0, critic = bit 1, reviser = bit 2."""
    phi = games.shapley(np.array([0, 0.5, 0, 0.7, 0, 0.6, 0, 1]))
    assert phi == pytest.approx([0.716667, 0.166667, 0.116667], abs=1e-6)


@settings(deadline=None)
@given(tables())
def test_equals_the_mean_over_permutations(game):
    n, values = game
    assert games.shapley(values) == pytest.approx(brute_force.of_table(values, n), abs=1e-9)


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


def value_of(values: np.ndarray, coalition) -> float:
    return values[sum(1 << i for i in coalition)]


def subsets(of) -> list[frozenset]:
    of = list(of)
    return [frozenset(c) for size in range(len(of) + 1) for c in combinations(of, size)]


def by_orders(values: np.ndarray, n: int, allowed) -> list[float]:
    """The mean of what each player adds over the orders that are `allowed`."""
    orders = [order for order in permutations(range(n)) if allowed(order)]
    shares = [0.0] * n
    for order in orders:
        for place, player in enumerate(order):
            shares[player] += value_of(values, order[: place + 1]) - value_of(values, order[:place])
    return [share / len(orders) for share in shares]


def together(order, groups) -> bool:
    """Whether the members of each union follow one another."""
    changes = sum(groups[a] != groups[b] for a, b in zip(order[:-1], order[1:], strict=True))
    return changes == len(set(groups)) - 1


@settings(deadline=None)
@given(tables(most=5))
def test_banzhaf_is_the_mean_over_coalitions(game):
    n, values = game
    for i in range(n):
        added = [value_of(values, s | {i}) - value_of(values, s) for s in subsets(set(range(n)) - {i})]
        assert games.banzhaf(values)[i] == pytest.approx(sum(added) / len(added), abs=1e-9)


def test_banzhaf_by_hand():
    """Two of three decide; the first has a veto: it turns 3 of 4 coalitions, the others 1 of 4 each."""
    assert games.banzhaf(np.array([0, 0, 0, 1, 0, 1, 0, 1.0])) == pytest.approx([0.75, 0.25, 0.25])


@settings(deadline=None)
@given(tables(most=5))
def test_leave_one_out_uses_only_the_team_and_the_team_less_one(game):
    n, values = game
    full = 2**n - 1
    used = [full, *(full ^ 1 << i for i in range(n))]
    assert games.needed(games.leave_one_out_coefficients(n)).tolist() == sorted(used)
    sparse = np.full(2**n, np.nan)
    sparse[used] = values[used]
    expected = [values[full] - values[full ^ 1 << i] for i in range(n)]
    assert games.leave_one_out(sparse).tolist() == pytest.approx(expected)


def test_nobody_is_missed_in_a_redundant_team_and_yet_shapley_shares():
    either = np.array([0, 1, 1, 1.0])
    assert games.leave_one_out(either).tolist() == [0, 0]
    assert games.shapley(either).tolist() == [0.5, 0.5]
    assert games.interaction(either).tolist() == [[0, -1], [-1, 0]]  # redundancy


@settings(deadline=None)
@given(tables(most=5))
def test_interaction_is_its_definition(game):
    n, values = game
    shapley, banzhaf = games.interaction(values), games.banzhaf_interaction(values)
    assert shapley.shape == banzhaf.shape == (n, n)
    for i, j in combinations(range(n), 2):
        of_pair = of_banzhaf = 0.0
        for s in subsets(set(range(n)) - {i, j}):
            joint = value_of(values, s | {i, j}) - value_of(values, s | {i}) - value_of(values, s | {j})
            joint += value_of(values, s)
            of_pair += factorial(len(s)) * factorial(n - len(s) - 2) / factorial(n - 1) * joint
            of_banzhaf += joint / 2 ** (n - 2)
        assert shapley[i, j] == shapley[j, i] == pytest.approx(of_pair, abs=1e-9)
        assert banzhaf[i, j] == banzhaf[j, i] == pytest.approx(of_banzhaf, abs=1e-9)
    assert not shapley.diagonal().any() and not banzhaf.diagonal().any()


def test_interaction_of_the_check_value():
    """Solver and critic ½(.7 − .5) + ½(1 − .6); solver and reviser ½(.6 − .5) + ½(1 − .7); the others ½(1 − .7 − .6 + .5)."""
    found = games.interaction(np.array([0, 0.5, 0, 0.7, 0, 0.6, 0, 1]))
    assert found == pytest.approx(np.array([[0, 0.3, 0.2], [0.3, 0, 0.1], [0.2, 0.1, 0]]))


GROUPS = st.lists(st.sampled_from(["critic", "solver", "reviser"]), min_size=5, max_size=5)


@settings(deadline=None, max_examples=40)
@given(tables(most=5), GROUPS)
def test_owen_is_the_mean_over_orders_in_which_unions_stay_together(game, names):
    n, values = game
    groups = names[:n]
    expected = by_orders(values, n, lambda order: together(order, groups))
    assert games.owen(values, groups) == pytest.approx(expected, abs=1e-9)


@settings(deadline=None)
@given(tables(most=5))
def test_owen_of_players_alone_and_of_one_union_is_shapley(game):
    n, values = game
    assert games.owen(values, range(n)) == pytest.approx(games.shapley(values), abs=1e-9)
    assert games.owen(values, ["all"] * n) == pytest.approx(games.shapley(values), abs=1e-9)


def test_owen_leaves_out_coalitions_that_split_two_unions():
    """Unions {0, 1} and {2, 3}: {0, 2} and its like never occur, and may be unknown."""
    values = np.arange(16.0) ** 2
    known = np.where(np.isin(np.arange(16), [0b0101, 0b0110, 0b1001, 0b1010]), np.nan, values)
    assert games.owen(known, "aabb") == pytest.approx(games.owen(values, "aabb"))
    assert games.owen(known, "aabb").sum() == pytest.approx(225)


def test_owen_wants_a_union_for_each_player():
    with pytest.raises(ValueError, match="each of the 3 players; given 2"):
        games.owen(np.zeros(8), "ab")


@settings(deadline=None)
@given(tables(most=5), st.data())
def test_precedence_of_one_is_the_mean_over_orders_that_it_begins(game, data):
    n, values = game
    first = data.draw(st.integers(0, n - 1))
    possible = np.where((np.arange(2**n) >> first & 1) | (np.arange(2**n) == 0), values, np.nan)
    expected = by_orders(values, n, lambda order: order[0] == first)
    assert games.precedence(possible, [first]) == pytest.approx(expected, abs=1e-9)


@settings(deadline=None)
@given(tables(most=5), st.sets(st.integers(0, 4), min_size=1))
def test_precedence_of_several_counts_a_part_of_them_as_nobody(game, required):
    n, values = game
    required = {i for i in required if i < n} or {0}
    whole = sum(1 << i for i in required)
    masks = np.arange(2**n)
    values = np.where(masks & whole == whole, values, values[0])
    expected = by_orders(values, n, lambda order: set(order[: len(required)]) == required)
    possible = np.where((masks & whole == whole) | (masks == 0), values, np.nan)
    assert games.precedence(possible, sorted(required)) == pytest.approx(expected, abs=1e-9)


@settings(deadline=None)
@given(tables(most=5))
def test_precedence_without_required_players_is_shapley(game):
    _, values = game
    assert games.precedence(values, []) == pytest.approx(games.shapley(values), abs=1e-9)


def test_precedence_wants_players_of_the_game():
    with pytest.raises(ValueError, match="from 0 to 2; given \\[3\\]"):
        games.precedence(np.zeros(8), [3])


VARIANCES = {
    "shapley": (games.shapley, games.shapley_variance, ()),
    "banzhaf": (games.banzhaf, games.banzhaf_variance, ()),
    "leave_one_out": (games.leave_one_out, games.leave_one_out_variance, ()),
    "interaction": (games.interaction, games.interaction_variance, ()),
    "owen": (games.owen, games.owen_variance, ("aab",)),
    "precedence": (games.precedence, games.precedence_variance, ((1,),)),
}


@pytest.mark.parametrize("index", VARIANCES)
def test_a_variance_is_the_sum_of_what_each_coalition_contributes(index):
    """An index is linear: moving v(S) alone by one standard deviation moves it by what S contributes to its error."""
    of, variance_of, rest = VARIANCES[index]
    variances = np.linspace(0.1, 1.0, 8)
    moved = [of(np.sqrt(variances[mask]) * (np.arange(8) == mask), *rest) for mask in range(8)]
    assert variance_of(variances, *rest) == pytest.approx(sum(m**2 for m in moved))
