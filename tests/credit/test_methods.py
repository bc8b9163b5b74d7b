"""Each credit method on hand-worked traces."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.credit import first_error, shapley, uniform
from apps.records import MeritError
from tests.credit.plays import drive, graded, group, no_replays

TEAM = ("solver", "critic", "reviser")
GAME = {"": 0.0, "solver": 0.5, "solver critic": 0.7, "solver reviser": 0.6}  # the check value of the formulas; else 0


def run_uniform(the_group):
    return drive(uniform.assign(the_group, uniform.Options()), no_replays)[0]


def blame(marks, speakers=None):
    speakers = speakers or ["solver"] * len(marks)
    (credit,), _ = drive(first_error.assign(group(graded(speakers, 0.0, marks)), first_error.Options()), no_replays)
    return credit


def run_shapley(the_group, score, **options):
    return drive(shapley.assign(the_group, shapley.Options(**options)), score)


def game(replay):
    absent = dict(replay.absent)
    return GAME.get(" ".join(agent for agent in TEAM if agent not in absent), 0.0)


def test_uniform_gives_each_turn_its_traces_score():
    one, other = run_uniform(group(graded(["solver", "critic"], 1.0), graded(["solver"], 0.25, sample=1), roles=TEAM))
    assert (one.values, other.values) == ((1.0, 1.0), (0.25,))
    assert one.agents == {"solver": 1.0, "critic": 1.0, "reviser": 1.0}


@pytest.mark.parametrize(
    ("marks", "values"),
    [
        ([True, True], [0, 0]),
        ([True, False], [0, -1]),  # a right answer "repaired" into a wrong one
        ([False, True], [-1, 0.5]),  # an error repaired
        ([False, False, False], [-1, 0, 0]),  # an error left: never right, so the first answer is blamed
        ([None, False, None, False], [0, -1, 0, 0]),
        ([True, None, False, True], [0, 0, -1, 0.5]),  # lost, then brought back
        ([False, True, None, False], [-1, 0.5, 0, -1]),  # breaking a mended answer is an error anew
        ([None, None], [0, 0]),
        ([], []),
    ],
)
def test_first_error_walks_the_trace(marks, values):
    assert list(blame(marks).values) == values


def test_first_error_says_which_turn_and_why():
    credit = blame([True, None, False, True], ["solver", "critic", "reviser", "verifier"])
    assert credit.notes == ("reviser.0 lost the right answer", "verifier.0 repaired the answer")
    assert credit.agents == {"solver": 0, "critic": 0, "reviser": -1, "verifier": 0.5}
    assert "nobody" in blame([True]).notes[0]
    assert "no turn gave an answer" in blame([None]).notes[0]


@settings(deadline=None)
@given(st.lists(st.sampled_from([True, False, None]), max_size=12))
def test_first_error_blames_once_for_each_spell_of_being_wrong(marks):
    answers = [mark for mark in marks if mark is not None]
    spells = sum(not now and before for before, now in zip([True, *answers], answers, strict=False))
    assert blame(marks).values.count(-1.0) == spells
    assert blame(marks).values.count(0.5) == spells - (bool(answers) and not answers[-1])


def test_first_error_wants_a_verdict_for_each_turn():
    member = graded(["solver", "critic"], 1.0, [True])
    with pytest.raises(MeritError, match="2 turns and 1 turn"):
        drive(first_error.assign(group(member), first_error.Options()), no_replays)


def test_shapley_of_the_check_value_split_among_the_turns_of_an_agent():
    (credit,), asked = run_shapley(group(graded([*TEAM, "critic"], 1.0), roles=TEAM), game)
    assert credit.values == pytest.approx([0.716667, 0.083333, 0.116667, 0.083333], abs=1e-6)
    assert credit.agents == pytest.approx({"solver": 0.716667, "critic": 0.166667, "reviser": 0.116667}, abs=1e-6)
    assert credit.errors == (0.0,) * 4
    assert len(asked) == 7 * 4


def test_shapley_never_replays_the_whole_team_and_asks_once_for_all():
    method = shapley.assign(group(graded(TEAM, 1.0), graded(["solver"], 0.0, sample=1)), shapley.Options(repeats=2))
    asked = next(method)
    assert [len([r for r in asked if r.trace == t]) for t in (0, 1)] == [7 * 2, 1 * 2]
    assert all(replay.absent for replay in asked) and len(set(asked)) == len(asked)
    assert {replay.repeat for replay in asked} == {0, 1}
    assert {replay.absent for replay in asked if replay.trace == 1} == {(("solver", "bypass"),)}


def test_shapley_names_the_stand_in_of_each_role():
    _, asked = run_shapley(group(graded(["solver", "critic"], 1.0)), game, protocols={"solver": "base"}, repeats=1)
    assert [replay.absent for replay in asked] == [
        (("solver", "base"), ("critic", "bypass")),
        (("critic", "bypass"),),
        (("solver", "base"),),
    ]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(TEAM), min_size=1, max_size=6), st.lists(st.booleans(), min_size=56, max_size=56))
def test_shapley_conserves_what_the_team_gained(speakers, coins):
    """The values of a trace sum to its own score less that of nobody, whatever the replays give."""
    outcomes, nobody = iter(coins), []

    def score(replay):
        value = float(next(outcomes))
        if len(replay.absent) == len(set(speakers)):
            nobody.append(value)
        return value

    (credit,), _ = run_shapley(group(graded(speakers, 1.0)), score, repeats=8)
    assert sum(credit.values) == pytest.approx(1.0 - np.mean(nobody))


def test_shapley_error_by_hand():
    """One agent: φ = v(N) − v(∅), so its variance is p(1 − p)/(R − 1) of the replays without it; two turns share it."""
    (credit,), _ = run_shapley(group(graded(["solver", "solver"], 1.0)), lambda r: float(r.repeat < 3), repeats=8)
    error = np.sqrt(3 / 8 * 5 / 8 / 7)
    assert credit.agents == pytest.approx({"solver": 5 / 8})
    assert credit.agent_errors == pytest.approx({"solver": error})
    assert credit.errors == pytest.approx([error / 2] * 2)


def test_shapley_error_is_conservative_under_common_random_numbers():
    """Every coalition thresholds the same uniform number of its repeat, so all are positively correlated."""
    draws = np.random.default_rng(2).random((400, 8))
    the_group = group(*(graded(TEAM, 1.0, sample=i) for i in range(400)))
    credits, _ = run_shapley(the_group, lambda r: float(draws[r.trace, r.repeat] < 0.5), repeats=8)
    phi = np.array([list(credit.agents.values()) for credit in credits])
    claimed = np.array([list(credit.agent_errors.values()) for credit in credits])
    assert (phi.var(axis=0) < 0.5 * (claimed**2).mean(axis=0)).all()


def test_a_single_repeat_claims_no_error():
    (credit,), _ = run_shapley(group(graded(TEAM, 1.0)), game, repeats=1)
    assert credit.errors == (0.0, 0.0, 0.0)


def test_shapley_players_are_those_who_spoke_or_all():
    member = graded(["solver"], 1.0)
    (credit,), asked = run_shapley(group(member, roles=TEAM), lambda r: 0.0, repeats=1)
    assert len(asked) == 1 and credit.agents == {"solver": 1.0, "critic": 0.0, "reviser": 0.0}
    (credit,), asked = run_shapley(group(member, roles=TEAM), lambda r: 0.0, repeats=1, players="all")
    assert len(asked) == 7 and credit.agents == pytest.approx(dict.fromkeys(TEAM, 1 / 3))


def test_shapley_notes_count_the_replays_without_each_agent():
    def score(replay):
        return float(replay.absent == (("critic", "bypass"),) and replay.repeat < 6)

    (credit,), _ = run_shapley(group(graded(["solver", "critic"], 1.0)), score, repeats=8)
    assert credit.notes == (
        "without solver (bypass): right in 0 of 8 replays",
        "without critic (bypass): right in 6 of 8 replays",
        "without everyone: right in 0 of 8 replays",
    )


def test_shapley_falls_back_to_the_centred_score_outside_the_share():
    members = [graded(TEAM, score, sample=i) for i, score in enumerate([1.0, 0.0, 0.0, 0.0])]
    credits, asked = run_shapley(group(*members), no_replays, share=0.0)
    assert not asked
    assert [credit.values for credit in credits] == [(0.75,) * 3, (-0.25,) * 3, (-0.25,) * 3, (-0.25,) * 3]


def test_shapley_refuses_unknown_roles():
    with pytest.raises(MeritError, match="did you mean 'critic'"):
        run_shapley(group(graded(TEAM, 1.0)), no_replays, protocols={"critc": "base"})


def test_shapley_refuses_a_replay_without_a_score():
    with pytest.raises(MeritError, match="replay of 't#0' has the score nan"):
        run_shapley(group(graded(["solver"], 1.0)), lambda r: float("nan"))
