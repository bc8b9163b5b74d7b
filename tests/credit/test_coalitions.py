"""What all methods of coalitions share: laws of their values, what they ask, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.credit import budget, coalitions, games, shares
from apps.records import MeritError, Outcome, Replay
from tests.credit import brute_force
from tests.credit.coalition_play import NAMES, of_game, present, run
from tests.credit.plays import drive, graded, group, no_replays

TEAM = NAMES[:3]
METHODS = ["shapley", "owen", "banzhaf", "leave_one_out"]
REFERENCE = {
    "shapley": brute_force.shapley,
    "owen": brute_force.shapley,  # nobody has a duty here, so all stand alone; its own tests have unions of several
    "banzhaf": brute_force.banzhaf,
    "leave_one_out": brute_force.leave_one_out,
}


@st.composite
def some_games(draw, most=4):
    players = NAMES[: draw(st.integers(1, most))]
    worth = {s: draw(st.integers(-8, 8)) / 8 for s in brute_force.subsets(players)}
    return players, worth.__getitem__


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=25, deadline=None)
@given(some_games())
def test_values_are_those_of_the_definition(method, made):
    players, game = made
    assert of_game(method, game, players).agents == pytest.approx(REFERENCE[method](game, players))


@pytest.mark.parametrize("method", ["shapley", "owen"])
@settings(max_examples=25, deadline=None)
@given(some_games())
def test_efficient_methods_share_what_the_team_gained(method, made):
    players, game = made
    credit = of_game(method, game, players)
    assert sum(credit.values) == pytest.approx(game(frozenset(players)) - game(frozenset()))
    assert credit.residual == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("method", ["banzhaf", "leave_one_out"])
def test_other_methods_promise_no_sum(method):
    assert of_game(method, lambda s: float(len(s) > 1), TEAM).residual is None


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=15, deadline=None)
@given(some_games())
def test_equal_agents_are_given_equal_of_game(method, made):
    players, game = made
    players = (*players, "twin")
    swap = {players[0]: "twin", "twin": players[0]}

    def fair(s):
        twins = [frozenset(swap.get(p, p) for p in s), s]
        return sum(game(t - {"twin"}) + 2.0 * ("twin" in t) * len(t) for t in twins)

    found = of_game(method, fair, players).agents
    assert found[players[0]] == pytest.approx(found["twin"])


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=15, deadline=None)
@given(some_games())
def test_who_changes_nothing_gets_nothing(method, made):
    players, game = made
    found = of_game(method, lambda s: game(s - {"idler"}), (*players, "idler")).agents
    assert found["idler"] == pytest.approx(0, abs=1e-12)
    assert [found[p] for p in players] == pytest.approx(list(of_game(method, game, players).agents.values()))


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=15, deadline=None)
@given(some_games(), st.integers(-3, 3))
def test_values_are_linear_in_the_game(method, made, factor):
    players, game = made
    one, other = of_game(method, game, players).agents, of_game(method, lambda s: float(len(s) ** 2), players).agents
    mixed = of_game(method, lambda s: factor * game(s) + len(s) ** 2, players).agents
    assert mixed == pytest.approx({p: factor * one[p] + other[p] for p in players})


@pytest.mark.parametrize("method", METHODS)
def test_errors_cover_independent_replays(method):
    """z-scores of values from independent coins have a spread of 1."""
    rng, traces, chance = np.random.default_rng(5), 500, lambda s: 0.3 + 0.15 * len(s)
    the_group = group(*(graded(TEAM, 1.0, sample=i) for i in range(traces)), roles=TEAM)
    credits, _ = run(method, the_group, lambda r: rng.random() < chance(present(r, TEAM)), repeats=24)
    truth = REFERENCE[method](lambda s: 1.0 if len(s) == 3 else chance(s), TEAM)
    z = np.array([[(c.agents[p] - truth[p]) / c.agent_errors[p] for p in TEAM] for c in credits])
    assert z.mean(axis=0) == pytest.approx(0, abs=0.15)
    assert z.std(axis=0) == pytest.approx(1, abs=0.12)


@pytest.mark.parametrize("method", METHODS)
def test_repeats_that_agree_and_single_repeats_claim_no_error(method):
    for repeats in (1, 3):
        credit = of_game(method, lambda s: 0.1 * len(s), TEAM, repeats=repeats)
        assert credit.errors == (0.0,) * 3 and set(credit.agent_errors.values()) == {0.0}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("protocol", ["bypass", "null", "base", "cached"])
def test_protocols_are_passed_through(method, protocol):
    the_group = group(*(graded(TEAM, 1.0, sample=i) for i in range(2)), roles=TEAM)
    _, (asked,) = run(method, the_group, lambda r: 0.0, repeats=1, protocol=protocol, protocols={"critic": "base"})
    named = {pair for replay in asked for pair in replay.absent}
    assert named == {("solver", protocol), ("critic", "base"), ("reviser", protocol)}
    assert {(r.keep, r.fresh) for r in asked} == {(0, "")}


def test_methods_ask_with_equal_replays():
    """What one asked need not be played again for another."""
    the_group = group(graded(TEAM, 1.0), roles=TEAM)
    asked = {m: set(run(m, the_group, lambda r: 0.0)[1][0]) for m in METHODS}
    assert asked["leave_one_out"] < asked["shapley"] == asked["banzhaf"] and asked["owen"] <= asked["shapley"]
    assert [len(asked[m]) for m in METHODS] == [28, 28, 28, 12]


def stuck(replay, players=TEAM, game=None):
    """A team whose solver cannot be absent: the base model solves in its place."""
    did = tuple((f"{p}.0", "base" if p == "solver" else protocol) for p, protocol in replay.absent)
    return Outcome(game(present(replay, players)) if game else 0.0, "", 1, 1, did)


@pytest.mark.parametrize("method", METHODS)
def test_a_fallback_is_noted(method):
    (credit,), _ = run(method, group(graded(TEAM, 1.0), roles=TEAM), stuck, repeats=2)
    turns = 2 if method == "leave_one_out" else 8
    assert f"solver could not be absent by bypass: base stood in for {turns} turns" in credit.notes
    assert not any("critic could not" in note or "reviser could not" in note for note in credit.notes)


@settings(max_examples=25, deadline=None)
@given(some_games())
def test_who_cannot_be_absent_comes_first(made):
    players, game = made
    member, options = (
        group(graded(players, game(frozenset(players))), roles=players),
        {"infeasible": "leave_out", "repeats": 1},
    )
    found = {m: run(m, member, lambda r: stuck(r, players, game), **options)[0][0] for m in METHODS}
    without = lambda s: game(s) if "solver" in s else 0.0  # noqa: E731
    first = brute_force.precedence(game, players, ["solver"])
    assert found["shapley"].agents == pytest.approx(first)
    assert found["owen"].agents == pytest.approx(first)
    assert sum(found["shapley"].values) == pytest.approx(game(frozenset(players)))
    assert found["shapley"].residual == pytest.approx(0, abs=1e-12) == found["owen"].residual
    assert found["leave_one_out"].agents == pytest.approx(brute_force.leave_one_out(without, players))
    rest = brute_force.banzhaf(lambda s: game(s | {"solver"}), players[1:])
    theirs = brute_force.banzhaf(without, players)["solver"]
    assert found["banzhaf"].agents == pytest.approx({"solver": theirs, **rest})
    table = np.array(
        [game(frozenset(p for i, p in enumerate(players) if m >> i & 1)) for m in range(2 ** len(players))]
    )
    table[0] = 0
    assert list(found["shapley"].agents.values()) == pytest.approx(games.precedence(table, [0]).tolist())


def test_coalitions_that_cannot_happen_are_not_asked_for_again():
    member = group(graded(TEAM, 1.0), roles=TEAM)
    (credit,), waves = run("shapley", member, stuck, repeats=2, infeasible="leave_out")
    assert [[len(r.absent) for r in wave] for wave in waves] == [[1] * 6, [2] * 2]
    assert waves[1][0].absent == (("critic", "bypass"), ("reviser", "bypass"))
    assert "solver cannot be absent: first in every order, and nobody is worth 0" in credit.notes
    assert "without everyone but solver: right in 0 of 2 replays" in credit.notes
    assert not any("could not" in note or note.startswith("without solver") for note in credit.notes)
    (credit,), waves = run("shapley", member, lambda r: 0.0, repeats=2, infeasible="leave_out")
    assert sum(map(len, waves)) == 14 and not any("cannot" in note for note in credit.notes)


def test_a_cached_turn_that_is_bypassed_is_still_absent():
    the_group = group(*(graded(TEAM, 1.0, sample=i) for i in range(2)), roles=TEAM)
    answer = lambda r: Outcome(0.0, "", 1, 1, (("critic.0", "bypass"),) if ("critic", "cached") in r.absent else ())  # noqa: E731
    (credit, _), waves = run("shapley", the_group, answer, protocol="cached", infeasible="leave_out", repeats=1)
    assert sum(map(len, waves)) == 14
    assert "critic could not be absent by cached: bypass stood in for 4 turns" in credit.notes


def test_errors_where_somebody_comes_first():
    """v(R) = p of 8 replays, shared by the one who is required; v(N) is known."""
    member = group(graded(TEAM[:2], 1.0), roles=TEAM[:2])
    answer = lambda r: Outcome(float(r.repeat < 2), "", 1, 1, stuck(r).stand_ins)  # noqa: E731
    (credit,), _ = run("shapley", member, answer, repeats=8, infeasible="leave_out")
    error = np.sqrt(0.25 * 0.75 / 7)
    assert credit.agents == pytest.approx({"solver": 0.25, "critic": 0.75})
    assert credit.agent_errors == pytest.approx({"solver": error, "critic": error})


def test_two_who_cannot_be_absent_share_what_they_bring():
    def answer(replay):
        did = tuple((f"{p}.0", "bypass" if p == "reviser" else "base") for p, _ in replay.absent)
        return Outcome(float(replay.repeat < 2), "", 1, 1, did)

    for method in ("shapley", "owen"):
        (credit,), _ = run(method, group(graded(TEAM, 1.0)), answer, repeats=8, infeasible="leave_out")
        error = np.sqrt(0.25 * 0.75 / 7)
        assert credit.agents == pytest.approx({"solver": 0.125, "critic": 0.125, "reviser": 0.75})
        assert credit.agent_errors == pytest.approx({"solver": error / 2, "critic": error / 2, "reviser": error})


def test_several_traces_are_asked_for_side_by_side():
    the_group = group(graded(TEAM, 1.0), graded(["solver"], 0.0, sample=1), graded([], 1.0, sample=2), roles=TEAM)
    credits, waves = run("shapley", the_group, lambda r: float(r.trace), repeats=2)
    assert [[r.trace for r in wave] for wave in waves] == [[0] * 14 + [1] * 2]
    assert [c.trace for c in credits] == ["t#0", "t#1", "t#2"]
    assert credits[1].agents["solver"] == -1 and sum(credits[0].values) == 1
    assert credits[2].values == () and credits[2].notes == ("nobody spoke: there is nothing to share",)


def test_generators_run_side_by_side_get_their_own_findings():
    def asking(name, *waves):
        heard = [name]
        for wave in waves:
            heard += yield list(wave)
        return heard

    def run_all():
        some = [asking("a", "12", "3"), asking("b"), asking("c", "4"), asking("d", "5", "", "6")]
        return (yield from coalitions.together(some))

    running, sent, asked = run_all(), None, []
    with pytest.raises(StopIteration) as end:
        while True:
            asked.append(running.send(sent))
            sent = [int(question) for question in asked[-1]]
    assert ["".join(wave) for wave in asked] == ["1245", "3", "6"]
    assert end.value.value == [["a", 1, 2, 3], ["b"], ["c", 4], ["d", 5, 6]]


@pytest.mark.parametrize(
    ("player", "role"),
    [("critic", "critic"), ("critic.1", "critic"), ("nested.0/critic.12", "critic"), ("debater_1.0", "debater_1")],
)
def test_the_agent_of_a_path(player, role):
    assert shares.role_of(player) == role


def test_fallbacks_are_what_was_not_declared():
    asked = Replay(0, (("solver", "bypass"), ("critic.1", "cached")))
    did = (
        ("solver.0", "base"),
        ("n.0/solver.0", "bypass"),
        ("critic.0", "x"),
        ("critic.1", "bypass"),
        ("other.0", "base"),
    )
    assert coalitions.fallbacks(asked, Outcome(1, "", 0, 0, did)) == [("solver", "base"), ("critic.1", "bypass")]


@pytest.mark.parametrize("method", METHODS)
def test_faults_are_told_with_their_remedy(method):
    member = graded(TEAM, 1.0)
    with pytest.raises(MeritError, match="did you mean 'critic'"):
        run(method, group(member), no_replays, protocols={"critc": "base"})
    with pytest.raises(MeritError, match="replay of 't#0' has the score nan.*verifier"):
        run(method, group(member), lambda r: float("nan"))
    with pytest.raises(MeritError, match="zero players"):
        run(method, group(graded([], 1.0)), no_replays)
    with pytest.raises(MeritError, match="cached.*single trace.*bypass, null or base"):
        run(method, group(member), no_replays, protocols={"critic": "cached"})
    with pytest.raises(MeritError, match="outside credit.share.*share=1"):
        run(method, group(member), no_replays, share=0.0)


@pytest.mark.parametrize("method", METHODS)
def test_outside_the_share_nothing_is_asked(method):
    members = [graded(TEAM, score, sample=i) for i, score in enumerate([1.0, 0.0])]
    credits, waves = run(method, group(*members, roles=TEAM), no_replays, share=0.0)
    assert not waves[:-1] and [c.values for c in credits] == [(0.5,) * 3, (-0.5,) * 3]


def test_the_share_is_chosen_by_digest_and_nested():
    tasks = [f"task-{i}" for i in range(4000)]
    chosen = {share: {task for task in tasks if budget.chosen(task, share)} for share in (0.0, 0.25, 0.5, 1.0)}
    assert (len(chosen[0.0]), len(chosen[1.0])) == (0, 4000)
    assert chosen[0.25] < chosen[0.5]
    assert len(chosen[0.25]) == pytest.approx(1000, abs=120)


def test_a_method_of_ones_own_takes_what_it_needs():
    """A table of some coalitions is NaN elsewhere, and knows the whole team's score without a replay."""
    game = coalitions.Game(group(graded(TEAM, 0.5)), 0, TEAM, coalitions.Replayed(repeats=2))
    (values, variances), asked = drive(game.table([0b011, 0b111]), lambda r: float(r.repeat))
    assert [r.absent for r in asked] == [(("reviser", "bypass"),)] * 2
    assert values[[3, 7]].tolist() == [0.5, 0.5] and np.isnan(np.delete(values, [3, 7])).all()
    assert variances[[3, 7]].tolist() == [0.25, 0.0]
