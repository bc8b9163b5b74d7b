"""Known values against brute force, published figures and hand-worked numbers; noise that is what it claims to be."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from apps.credit import games
from apps.fidelity import known_games

GAMES = [*known_games.free_of_noise(), *known_games.noisy_teams(12)]


@pytest.mark.parametrize("game", GAMES, ids=lambda g: f"{g.name} ({g.players})")
def test_two_routes_lead_to_the_same_values(game):
    assert game.values.shape == (2**game.players,)
    assert games.shapley(game.values) == pytest.approx(game.shapley, abs=1e-9)


@pytest.mark.parametrize("game", [g for g in GAMES if g.players <= 7], ids=lambda g: f"{g.name} ({g.players})")
def test_and_so_does_walking_through_all_orders(game):
    shares, orders = np.zeros(game.players), np.array(list(permutations(range(game.players))))
    before = np.zeros(len(orders), dtype=int)
    for player in orders.T:
        joined = before | 1 << player
        np.add.at(shares, player, game.values[joined] - game.values[before])
        before = joined
    assert shares / len(orders) == pytest.approx(game.shapley, abs=1e-9)


def test_names_are_told_apart_and_teams_have_up_to_12_players():
    assert len({g.name for g in GAMES}) == len(GAMES)
    assert max(g.players for g in GAMES) == 12


def test_gloves_by_hand():
    """One left glove, two right: the left one adds a pair unless it is first."""
    game = known_games.glove(1, 2)
    assert game.values.tolist() == [0, 0, 0, 1, 0, 1, 0, 1]
    assert game.shapley == pytest.approx([2 / 3, 1 / 6, 1 / 6])
    assert known_games.glove(2, 2).shapley == pytest.approx([0.5] * 4)


def test_airport_by_hand():
    game = known_games.airport([1, 2, 3])
    assert game.values.tolist() == [0, 1, 2, 2, 3, 3, 3, 3]
    assert game.shapley == pytest.approx([1 / 3, 1 / 3 + 1 / 2, 1 / 3 + 1 / 2 + 1])


def test_voting_by_hand():
    """Three of 2, 1, 1 votes: the first turns every order in which it is not first."""
    assert known_games.voting("", 3, (2, 1, 1)).shapley == pytest.approx([2 / 3, 1 / 6, 1 / 6])


def test_voting_as_published():
    """The council of 1958: 14/60 for the large, 9/60 for the middle, and Luxembourg a dummy."""
    found = {g.name: g.shapley for g in GAMES}
    assert found["voting: council of 1958"] == pytest.approx(np.array([14, 14, 14, 9, 9, 0]) / 60)
    council = [0.134] * 4 + [0.111] + [0.064] * 4 + [0.042] * 2 + [0.012]
    assert found["voting: council of 1986"] == pytest.approx(council, abs=6e-4)


def test_dividends_by_hand():
    """v = 1, 4, 9 for {0}, {1}, both: dividends 1, 4, 4."""
    assert known_games.by_dividends(np.array([0, 1.0, 4, 9])).tolist() == [3, 6]


def test_a_monotone_game_never_loses_by_a_member_and_a_random_one_does():
    found = {g.name: g.values for g in GAMES}
    masks = np.arange(256)
    for name, rises in (("random monotone", True), ("random", False)):
        added = [found[name][masks | 1 << i] - found[name][masks] for i in range(8)]
        assert bool((np.array(added) >= 0).all()) is rises


def test_teams_are_probabilities_and_differ():
    teams = known_games.noisy_teams(12)
    assert all(g.values.min() > 0 and g.values.max() < 1 and g.noisy for g in teams)
    assert {g.players for g in teams} == {3, 4, 5, 6, 7, 8}
    assert (teams[0].values[1:] != teams[6].values[1:]).all()  # nobody there is as bad in all
    assert any((g.shapley < 0).any() for g in teams), "somebody should do harm"


def test_games_are_repeatable_and_seeded():
    again, other = known_games.noisy_teams(2), known_games.noisy_teams(2, seed=1)
    assert again[1].values.tolist() == known_games.noisy_teams(5)[1].values.tolist()
    assert again[1].values.tolist() != other[1].values.tolist()


TEAM = known_games.noisy_teams(2)[1]
MASKS = np.arange(2**TEAM.players)


def drawn(coupling: float, draws: int = 20_000, seed: int = 0) -> np.ndarray:
    """Evaluations of every coalition (draws, coalitions); a row is a draw."""
    value = known_games.oracle(TEAM, seed, coupling)
    number = np.repeat(np.arange(draws), len(MASKS))
    return value(np.tile(MASKS, draws), number).reshape(draws, -1)


@pytest.mark.parametrize("coupling", [1.0, 0.5, 0.0])
def test_an_evaluation_is_right_as_often_as_it_should_be(coupling):
    assert drawn(coupling).mean(axis=0) == pytest.approx(TEAM.values, abs=4 * (0.25 / 20_000) ** 0.5)


def test_coalitions_of_a_draw_share_its_number():
    """With full coupling the better coalition is right wherever the worse one is; with none they are independent."""
    order = np.argsort(TEAM.values)
    coupled, loose = drawn(1.0)[:, order], drawn(0.0)[:, order]
    assert (np.diff(coupled, axis=1) >= 0).all()
    assert np.abs(np.corrcoef(loose.T) - np.eye(len(MASKS))).max() < 0.04
    assert np.corrcoef(drawn(0.5)[:, order[-2:]].T)[0, 1] < np.corrcoef(coupled[:, -2:].T)[0, 1] / 2


def test_draws_are_independent_and_seeded():
    one = drawn(1.0, 5000)
    right = one[:, len(MASKS) // 2]
    assert abs(np.corrcoef(right[:-1], right[1:])[0, 1]) < 0.06
    assert (drawn(1.0, 5000) == one).all()
    assert (drawn(1.0, 5000, seed=1) != one).any()


def test_a_game_free_of_noise_answers_with_its_table():
    game = known_games.airport([1, 2, 3])
    assert known_games.oracle(game)(np.array([7, 1]), np.array([5, 6])).tolist() == [3, 1]
