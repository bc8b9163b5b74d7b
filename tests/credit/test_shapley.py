"""Shapley values beyond one exact game of agents: turns as players, the task's game, sampled orders, interactions."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.credit import shapley
from apps.records import MeritError, Outcome
from tests.credit import brute_force
from tests.credit.coalition_play import NAMES, of_game, pairwise, present, run
from tests.credit.plays import graded, group, no_replays

TEAM = NAMES[:3]
SCHEMES = ["plain", "antithetic", "stratified"]
WORKED = {"": 0.0, "solver": 0.5, "solver critic": 0.7, "solver reviser": 0.6, "solver critic reviser": 1.0}


def worked(members):
    return WORKED.get(" ".join(p for p in TEAM if p in members), 0.0)


def large(n=8, seed=3):
    """A game of n players that is worth something alone and in pairs, and its Shapley (and Banzhaf) values."""
    rng = np.random.default_rng(seed)
    alone = {p: float(rng.normal()) / 4 for p in NAMES[:n]}
    return pairwise(alone, {pair: float(rng.normal()) / 8 for pair in combinations(NAMES[:n], 2)})


def turns(speakers):
    return [f"{agent}.{list(speakers[:i]).count(agent)}" for i, agent in enumerate(speakers)]


def test_the_worked_example():
    credit = of_game("shapley", worked, TEAM, repeats=3)
    assert credit.agents == pytest.approx({"solver": 0.716667, "critic": 0.166667, "reviser": 0.116667}, abs=1e-6)
    assert (credit.residual, set(credit.errors)) == (pytest.approx(0, abs=1e-12), {0.0})


def test_turns_can_be_the_players():
    speakers = ["solver", "critic", "reviser", "critic"]
    rng = np.random.default_rng(0)
    worth = {s: float(rng.random()) for s in brute_force.subsets(turns(speakers))}
    asked = []

    def answer(replay):
        asked.append(replay)
        return worth[present(replay, turns(speakers))]

    member = graded(speakers, worth[frozenset(turns(speakers))])
    options = {"level": "turn", "repeats": 1, "protocols": {"critic": "null"}}
    (credit,), _ = run("shapley", group(member, roles=TEAM), answer, **options)
    truth = brute_force.shapley(worth.__getitem__, turns(speakers))
    assert credit.values == pytest.approx(list(truth.values()))
    assert credit.agents["critic"] == pytest.approx(truth["critic.0"] + truth["critic.1"])
    assert credit.residual == pytest.approx(0, abs=1e-12)
    assert {pair for r in asked for pair in r.absent} == {
        ("solver.0", "bypass"), ("critic.0", "null"), ("reviser.0", "bypass"), ("critic.1", "null")
    }  # fmt: skip


def test_the_error_of_an_agent_covers_the_sum_of_its_turns():
    rng, speakers = np.random.default_rng(1), ["solver", "critic", "critic"]
    members = group(*(graded(speakers, 1.0, sample=i) for i in range(400)))
    credits, _ = run("shapley", members, lambda r: rng.random() < 0.5, level="turn", repeats=16)
    summed = np.array([c.agents["critic"] for c in credits]).std()
    assert summed < np.mean([c.agent_errors["critic"] for c in credits]) < 2.5 * summed
    assert credits[0].agent_errors["critic"] == pytest.approx(credits[0].errors[1] + credits[0].errors[2])


def test_the_tasks_game_is_one_for_all_its_traces():
    """v(S) is over fresh plays, v(N) too; so a baseline within the group leaves nothing."""
    the_group = group(
        graded(TEAM, 1.0), graded(["solver"], 0.0, sample=1), graded(TEAM[:2], 0.0, sample=2), roles=NAMES[:4]
    )
    credits, waves = run("shapley", the_group, lambda r: worked(present(r, TEAM)), game="task", repeats=2)
    asked = set(waves[0])
    assert len(waves) == 1 and len(asked) == 8 * 2  # what the traces ask is the same
    assert {(r.trace, r.keep, r.fresh) for r in asked} == {(0, 0, "rest")}
    truth = pytest.approx({"solver": 0.716667, "critic": 0.166667, "reviser": 0.116667, "verifier": 0}, abs=1e-6)
    assert [c.agents == truth for c in credits] == [True] * 3
    assert credits[1].values == pytest.approx([0.716667], abs=1e-6)
    assert [c.residual for c in credits] == pytest.approx([0] * 3, abs=1e-12)


def test_the_tasks_game_has_an_error_on_the_whole_team_too():
    rng = np.random.default_rng(2)
    phi = []
    for _ in range(300):
        scores = {}
        answer = lambda r: scores.setdefault(r, float(rng.random() < 0.4))  # noqa: B023, E731
        (credit,), _ = run("shapley", group(graded(["solver"], 1.0)), answer, game="task", repeats=24)
        phi.append((credit.agents["solver"], credit.agent_errors["solver"]))
    z = np.array([value / error for value, error in phi])  # with and without the solver: the same chance
    assert (z.mean(), z.std()) == (pytest.approx(0, abs=0.2), pytest.approx(1, abs=0.15))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_sampled_values_agree_with_exact_ones(scheme):
    game, truth = large()
    credit = of_game("shapley", game, NAMES, sampling=scheme, width=0.1, budget=6000)
    errors = np.array([credit.agent_errors[p] for p in NAMES])
    gaps = np.array([credit.agents[p] - truth[p] for p in NAMES])
    if scheme == "antithetic":  # an order and its reverse are exact on games of pairs
        assert gaps == pytest.approx(0, abs=1e-12)
    else:
        assert (np.abs(gaps) < 4 * errors).all() and 0 < errors.max() <= 0.1 / (2 * 1.96)
    assert credit.residual == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_errors_of_sampled_values_are_calibrated(scheme):
    rng = np.random.default_rng(4)
    game, truth = pairwise(dict.fromkeys(NAMES[:7], 0.06), {("solver", "critic"): 0.2, ("reviser", "judge"): 0.2})
    z = []
    for name in range(40):  # the orders are those of the task
        the_group = group(graded(NAMES[:7], game(frozenset(NAMES[:7]))), task=f"t{name}")
        noisy = lambda r: rng.random() < game(present(r, NAMES[:7]))  # noqa: E731
        (credit,), _ = run("shapley", the_group, noisy, sampling=scheme, width=0, budget=700)
        z += [(credit.agents[p] - truth[p]) / credit.agent_errors[p] for p in NAMES[:7]]
    assert np.mean(z) == pytest.approx(0, abs=0.25)
    assert np.std(z) == pytest.approx(1, abs=0.25)


def test_beyond_six_players_orders_are_drawn_until_the_interval_or_the_budget():
    rng = np.random.default_rng(6)
    ask = lambda **options: run("shapley", group(graded(NAMES, 1.0)), lambda r: rng.random() < 0.5, **options)  # noqa: E731
    (wide,), few = ask(width=0.6, budget=4000)
    (narrow,), many = ask(width=0.3, budget=4000)
    (bounded,), some = ask(width=0.0, budget=600)
    widths = [2 * 1.96 * max(c.agent_errors.values()) for c in (wide, narrow, bounded)]
    assert widths[0] <= 0.6 and widths[1] <= 0.3 < widths[2]
    assert len(few) < len(many) and sum(map(len, few)) < sum(map(len, many)) <= 4000
    assert 600 - 16 < sum(map(len, some)) <= 600
    assert "antithetic" in wide.notes[-1] and f"{sum(map(len, few))} coalition values" in wide.notes[-1]


def test_six_players_are_exact():
    game, truth = large(6)
    member = group(graded(NAMES[:6], game(frozenset(NAMES[:6]))))
    (credit,), (asked,) = run("shapley", member, lambda r: game(present(r, NAMES[:6])), repeats=2)
    assert len(asked) == 63 * 2 and set(credit.errors) == {0.0}
    assert credit.agents == pytest.approx(truth)


def test_the_coalitions_of_an_order_share_their_random_numbers():
    _, waves = run("shapley", group(graded(NAMES[:7], 1.0)), lambda r: 0.0, sampling="plain", width=0, budget=140)
    by_repeat = {}
    for replay in (r for wave in waves for r in wave):
        by_repeat.setdefault(replay.repeat, []).append(present(replay, NAMES[:7]))
    assert sorted(by_repeat) == list(range(20))
    for chain in by_repeat.values():
        chain = sorted(chain, key=len)
        assert [len(s) for s in chain] == list(range(7)) and all(a < b for a, b in zip(chain, chain[1:], strict=False))


def test_traces_of_a_task_are_sampled_by_the_same_orders():
    the_group = group(graded(NAMES[:7], 1.0), graded(NAMES[:7], 0.0, sample=1))
    _, (wave, *_) = run("shapley", the_group, lambda r: 0.0)
    one, other = ([(r.absent, r.repeat) for r in wave if r.trace == t] for t in (0, 1))
    assert one == other
    _, (elsewhere, *_) = run("shapley", group(graded(NAMES[:7], 1.0), task="u"), lambda r: 0.0)
    assert [(r.absent, r.repeat) for r in elsewhere] != one


def test_sampling_where_somebody_comes_first():
    game, _ = large()
    truth = brute_force.precedence(game, NAMES[:6], ["solver"])

    def answer(replay):
        did = tuple((f"{p}.0", "base" if p == "solver" else "bypass") for p, _ in replay.absent)
        return Outcome(game(present(replay, NAMES[:6])), "", 1, 1, did)

    member = group(graded(NAMES[:6], game(frozenset(NAMES[:6]))))
    (credit,), _ = run("shapley", member, answer, sampling="plain", infeasible="leave_out", width=0.02, budget=5000)
    for agent, error in credit.agent_errors.items():
        assert abs(credit.agents[agent] - truth[agent]) <= 4 * error + 1e-12
    assert credit.agents["solver"] == pytest.approx(game(frozenset(["solver"])))
    assert credit.residual == pytest.approx(0, abs=1e-9)


def test_a_few_orders_are_not_taken_for_certain():
    """No replay differs from another here, yet three orders tell little of what others would have shown."""
    credit = of_game("shapley", lambda s: 1.0, TEAM, sampling="plain", width=0, budget=9)
    assert credit.values == (0.0,) * 3 and min(credit.errors) > 0.15


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(-8, 8), min_size=16, max_size=16), st.integers(2, 4))
def test_interactions_are_those_of_the_definition(worths, n):
    players = NAMES[:n]
    worth = dict(zip(brute_force.subsets(players), worths, strict=False))
    credit = of_game("shapley", worth.__getitem__, players, interactions=True)
    notes = [note for note in credit.notes if " interact by " in note]
    for note, (i, j) in zip(notes, combinations(players, 2), strict=True):
        truth = brute_force.interaction(worth.__getitem__, players, i, j)
        words = note.split()
        assert (words[0], words[2]) == (i, j)
        assert float(words[5]) == pytest.approx(truth, abs=6e-4)
        assert ("synergy" in note, "redundancy" in note) == (truth > 1e-9, truth < -1e-9)


def test_redundant_critics_and_a_team_that_needs_all():
    redundant = of_game(
        "shapley", lambda s: float("critic" in s or "judge" in s), ["critic", "judge"], interactions=True
    )
    assert redundant.notes[-1] == "critic and judge interact by -1.000 ± 0.000 (redundancy)"
    needed = of_game("shapley", lambda s: float(len(s) == 2), ["critic", "judge"], interactions=True)
    assert needed.notes[-1] == "critic and judge interact by +1.000 ± 0.000 (synergy)"


def test_interactions_of_many_are_not_made_up():
    credit = of_game("shapley", large()[0], NAMES, interactions=True)
    assert "interactions need every coalition" in credit.notes[-1]


def test_faults_are_told_with_their_remedy():
    with pytest.raises(MeritError, match=r"8 players.*at most 6.*sampling=auto"):
        run("shapley", group(graded(NAMES, 1.0)), no_replays, sampling="exact")
    with pytest.raises(MeritError, match=r"budget of 5 .*raise it"):
        run("shapley", group(graded(NAMES, 1.0)), no_replays, budget=5)
    with pytest.raises(MeritError, match=r"players=all.*level=agent"):
        run("shapley", group(graded(TEAM, 1.0)), no_replays, level="turn", players="all")
    assert shapley.asks(shapley.Options()) and not shapley.asks(shapley.Options(share=0))
