"""Banzhaf's value, Owen's and leave-one-out where they differ from Shapley's: by hand, and against the definition."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.credit import banzhaf
from apps.records import MeritError, Outcome
from tests.credit import brute_force
from tests.credit.coalition_play import NAMES, of_game, pairwise, present, run
from tests.credit.plays import graded, group, no_replays

TEAM = NAMES[:3]


def worked(members):
    worth = {"": 0.0, "solver": 0.5, "solver critic": 0.7, "solver reviser": 0.6, "solver critic reviser": 1.0}
    return worth.get(" ".join(p for p in TEAM if p in members), 0.0)


def critics(members):
    """Right if the solver is there and any of two critics."""
    return float("solver" in members and bool(members & {"critic_1", "critic_2"}))


CRITICS = ("solver", "critic_1", "critic_2")


def test_banzhaf_by_hand():
    credit = of_game("banzhaf", worked, TEAM)
    # solver (.5 + .7 + .6 + 1) / 4, critic (0 + .2 + 0 + .4) / 4, reviser (0 + .1 + 0 + .3) / 4
    assert credit.agents == pytest.approx({"solver": 0.7, "critic": 0.15, "reviser": 0.1})


def test_banzhaf_error_by_hand():
    """One coin an empty team and none elsewhere: its weight is 1/2 of two players."""
    member = group(graded(TEAM[:2], 1.0))
    (credit,), _ = run("banzhaf", member, lambda r: len(r.absent) == 2 and r.repeat < 2, repeats=8)
    error = np.sqrt(0.25 * 0.75 / 7) / 2
    assert credit.agent_errors == pytest.approx({"solver": error, "critic": error})


def test_banzhaf_beyond_six_players_is_sampled_in_pairs():
    alone = {p: 0.1 * i for i, p in enumerate(NAMES)}
    game, truth = pairwise(alone, {("solver", "critic"): 0.5, ("judge", "reader"): -0.7, ("writer", "critic"): 0.3})
    member = group(graded(NAMES, game(frozenset(NAMES))))
    (credit,), (asked,) = run("banzhaf", member, lambda r: game(present(r, NAMES)), budget=2000)
    gaps = np.array([credit.agents[p] - truth[p] for p in NAMES]) / [credit.agent_errors[p] for p in NAMES]
    assert np.abs(gaps).max() < 4 and 0 < max(credit.agent_errors.values()) < 0.06
    drawn = {}
    for replay in asked:
        drawn.setdefault(replay.repeat, []).append(present(replay, NAMES))
    assert len(drawn) == 1000 and all(len(both) < 2 or both[0] == frozenset(NAMES) - both[1] for both in drawn.values())
    assert "1000 random coalitions of 8 players" in credit.notes[-1]


def test_the_errors_of_sampled_banzhaf_values_are_calibrated():
    rng, z = np.random.default_rng(8), []
    game, truth = pairwise(dict.fromkeys(NAMES[:7], 0.06), {("solver", "critic"): 0.2, ("reviser", "judge"): 0.2})
    for name in range(60):
        the_group = group(graded(NAMES[:7], game(frozenset(NAMES[:7]))), task=f"t{name}")
        noisy = lambda r: rng.random() < game(present(r, NAMES[:7]))  # noqa: E731
        (credit,), _ = run("banzhaf", the_group, noisy, budget=200)
        z += [(credit.agents[p] - truth[p]) / credit.agent_errors[p] for p in NAMES[:7]]
    assert np.mean(z) == pytest.approx(0, abs=0.2)
    assert np.std(z) == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("n", [2, 8])
def test_banzhaf_of_who_cannot_be_absent(n):
    """The solver's is what all coalitions of the others are worth with it: 1 but where all of them are absent."""
    players = NAMES[:n]

    def answer(replay):
        did = tuple((f"{p}.0", "base" if p == "solver" else "bypass") for p, _ in replay.absent)
        return Outcome(float(n > 2 or replay.repeat < 2), "", 1, 1, did)

    (credit,), _ = run("banzhaf", group(graded(players, 1.0)), answer, repeats=8, infeasible="leave_out")
    error = np.sqrt(0.25 * 0.75 / 7) / 2
    assert credit.agents["solver"] == pytest.approx(1.0 if n > 2 else (0.25 + 1) / 2)
    assert credit.agent_errors["solver"] == pytest.approx(0.0 if n > 2 else error)


def test_pairs_by_hand():
    """{a} against {b} twice: 1 − 0, then .5 − 0; {a, b} against nobody: 1 − 0."""
    member = np.array([[True, False], [True, False], [True, True]])
    values, errors = banzhaf.from_pairs(member, np.array([[1.0, 0.0], [0.5, 0.0], [1.0, 0.0]]))
    assert values == pytest.approx([2.5 / 3, -0.5 / 3])
    assert errors == pytest.approx([np.std([1, 0.5, 1], ddof=1) / 3**0.5, np.std([-1, -0.5, 1], ddof=1) / 3**0.5])


def test_leave_one_out_by_hand():
    assert of_game("leave_one_out", worked, TEAM).agents == pytest.approx(
        {"solver": 1.0, "critic": 0.4, "reviser": 0.3}
    )


def test_leave_one_out_sees_nothing_in_a_redundant_team():
    loo, shapley = of_game("leave_one_out", critics, CRITICS), of_game("shapley", critics, CRITICS)
    assert loo.agents == {"solver": 1.0, "critic_1": 0.0, "critic_2": 0.0}
    assert shapley.agents["critic_1"] == pytest.approx(1 / 6)
    idle = of_game("leave_one_out", lambda s: float(bool(s)), TEAM)
    assert set(idle.values) == {0.0} and "nobody alone is missed" in idle.notes[-1]
    assert "nobody alone" not in loo.notes[-1]


def test_leave_one_out_error_by_hand():
    (credit,), (asked,) = run("leave_one_out", group(graded(TEAM, 1.0)), lambda r: r.repeat < 2, repeats=8)
    assert len(asked) == 3 * 8
    assert credit.agents == pytest.approx(dict.fromkeys(TEAM, 0.75))
    assert credit.errors == pytest.approx([np.sqrt(0.25 * 0.75 / 7)] * 3)


def owen(game, players, unions=None, duties=None, **options):
    member = replace(group(graded(players, game(frozenset(players))), roles=tuple(players)), duties=duties or {})
    answer = lambda r: game(present(r, players))  # noqa: E731
    (credit,), (asked,) = run("owen", member, answer, unions=unions or {}, repeats=1, **options)
    return credit, asked


def test_owen_by_hand():
    """Solver and critics are needed both: each side gets 1/2, and the critics halve theirs. Shapley: 2/3 and 1/6 each."""
    credit, _ = owen(critics, CRITICS, {"critic_1": "critics", "critic_2": "critics"})
    assert credit.agents == pytest.approx({"solver": 0.5, "critic_1": 0.25, "critic_2": 0.25})
    assert credit.notes[-1] == "bargain as one: critic_1 and critic_2 (critics)"
    assert of_game("shapley", critics, CRITICS).agents["solver"] == pytest.approx(2 / 3)


def test_owens_error_by_hand():
    """A coin where nobody is there: its weight is 1/2 for a union alone, and half of that for each of two in one."""
    unions = {"critic_1": "critics", "critic_2": "critics"}
    answer = lambda r: len(r.absent) < 3 or r.repeat < 2  # noqa: E731
    (credit,), _ = run("owen", group(graded(CRITICS, 1.0)), answer, repeats=8, unions=unions)
    error = np.sqrt(0.25 * 0.75 / 7)
    assert credit.errors == pytest.approx([error / 2, error / 4, error / 4])


def test_roles_of_one_duty_are_a_union_unless_told_otherwise():
    duties = {"solver": "solve", "critic_1": "check", "critic_2": "check"}
    assert owen(critics, CRITICS, duties=duties)[0].agents["solver"] == pytest.approx(0.5)
    apart, _ = owen(critics, CRITICS, {"critic_1": "one", "critic_2": "two"}, duties)
    assert apart.agents["solver"] == pytest.approx(2 / 3) and "bargain" not in apart.notes[-1]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(-8, 8), min_size=16, max_size=16), st.lists(st.sampled_from("ab"), min_size=4, max_size=4))
def test_owen_is_that_of_the_definition(worths, names):
    players = NAMES[:4]
    worth, unions = dict(zip(brute_force.subsets(players), worths, strict=True)), dict(zip(players, names, strict=True))
    credit, _ = owen(worth.__getitem__, players, unions)
    assert credit.agents == pytest.approx(brute_force.owen(worth.__getitem__, players, unions))
    assert credit.residual == pytest.approx(0, abs=1e-12)


def test_owen_asks_only_for_what_it_needs():
    players = NAMES[:6]
    credit, asked = owen(lambda s: float(len(s)), players, {p: f"pair {i // 2}" for i, p in enumerate(players)})
    assert len(asked) + 1 == 32 and credit.values == pytest.approx([1.0] * 6)


def test_owens_faults_are_told_with_their_remedy():
    with pytest.raises(MeritError, match="credit.unions.*did you mean 'critic'"):
        run("owen", group(graded(TEAM, 1.0)), no_replays, unions={"critc": "a"})
    many = [f"debater_{i}" for i in range(12)]
    with pytest.raises(MeritError, match="12 players in 12 unions.*fewer, larger"):
        run("owen", group(graded(many, 1.0)), no_replays)
