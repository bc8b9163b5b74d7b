"""The four laws of reward and blame (local, signed, bounded, conserving), hand-worked traces, and planted faults."""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.credit import prefixes, reward_and_blame
from apps.records import MeritError
from tests.credit.plays import drive, graded, group, no_replays

TEAM = ("solver", "critic", "reviser")


def run(the_group, score, **options):
    return drive(reward_and_blame.assign(the_group, reward_and_blame.Options(**options)), score)


@st.composite
def groups(draw):
    members = []
    for sample in range(draw(st.integers(1, 4))):
        speakers = draw(st.lists(st.sampled_from(TEAM), min_size=1, max_size=5))
        marks = draw(st.lists(st.sampled_from([True, False, None]), min_size=len(speakers), max_size=len(speakers)))
        member = graded(speakers, draw(st.sampled_from([0.0, 0.25, 0.75, 1.0])), marks, sample)
        policy = draw(st.sampled_from(["base", "own"]))
        turns = tuple(replace(t, policy=policy) for t in member.trace.turns)
        members.append(replace(member, trace=replace(member.trace, turns=turns)))
    return group(*members, roles=TEAM)


def chance(the_group, seed):
    """A score for any replay that depends on what it starts from: equal beginnings come out alike, as in a play."""

    def score(replay):
        trace = the_group.graded[replay.trace].trace
        start = prefixes.beginning(trace, replay.keep) if replay.fresh == "rest" else (trace.id, replay.keep)
        name = (seed, start, replay.absent, replay.repeat, replay.fresh)
        return float(zlib.crc32(repr(name).encode()) % 3 == 0)

    return score


@settings(max_examples=60, deadline=None)
@given(groups(), st.integers(0, 10**6))
def test_conserving_and_bounded(the_group, seed):
    mean = np.mean(the_group.scores)
    for member, credit in zip(the_group.graded, run(the_group, chance(the_group, seed))[0], strict=True):
        assert sum(credit.values) == pytest.approx(member.verdict.score - mean, abs=1e-9)
        assert max(map(abs, credit.values)) <= 1 + 1e-12
        assert credit.residual == pytest.approx(0, abs=1e-9)
        assert sum(credit.agents.values()) == pytest.approx(sum(credit.values))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=7), st.floats(0, 1), st.data())
def test_local(worth, mean, data):
    """Before the sum is settled, a message's value does not change with what its successors are worth."""
    worth = np.array(worth)
    turn = data.draw(st.integers(0, len(worth) - 2))
    other = worth.copy()
    other[turn + 2 :] = data.draw(st.floats(0, 1))
    values = [reward_and_blame.telescoped(w, mean, None, 0.0) for w in (worth, other)]
    assert values[0][: turn + 1].tolist() == values[1][: turn + 1].tolist()
    assert values[0].sum() == pytest.approx(worth[-1] - mean)


@settings(max_examples=60, deadline=None)
@given(groups(), st.integers(0, 10**6))
def test_signed_the_culprit_of_a_failure_is_worth_least(the_group, seed):
    """And below 0, wherever there is another message that can make up the sum."""
    score = chance(the_group, seed)
    method = prefixes.measure(the_group, 8)
    measured = answered(method, score)
    blamed = answered(prefixes.blame(the_group, measured, 8, 0.25), score)
    credits, _ = run(the_group, score)
    for i, loss in blamed.items():
        if loss is not None:
            values = credits[i].values
            assert values[loss.turn] == pytest.approx(min(values))
            assert values[loss.turn] < 0 or len(values) == 1


@settings(max_examples=80, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=6), st.floats(0, 1))
def test_signed_what_helped_a_success_is_never_below_nor_what_harmed_above(phi, target):
    phi = np.array(phi)
    phi[np.abs(phi) <= 1e-9] = 0  # dust of rounding counts as nothing
    values, _ = reward_and_blame.scaled(phi, target, 0.1)
    assert (values[phi > 0] >= 0).all() and (values[phi < 0] <= 0).all()
    if (phi > 0).any():
        assert (values[phi == 0] == 0).all()  # a redundant message gets nothing
        assert values.sum() == pytest.approx(target)


def answered(asking, score):
    sent = None
    while True:
        try:
            wanted = asking.send(sent)
        except StopIteration as end:
            return end.value
        sent = [outcome(score(replay)) for replay in wanted]


def outcome(score):
    from apps.records import Outcome

    return Outcome(score, "", 1, 1)


def at(worth, repeats=8):
    """Scores of replays by (kept turns, fresh); coalitions by who is there."""

    def score(replay):
        here = worth.get((replay.keep, replay.fresh, *dict(replay.absent).values()), 0.0)
        if not replay.fresh:
            here = worth.get(frozenset(TEAM) - {agent for agent, _ in replay.absent}, 0.0)
        return float(replay.repeat < round(here * repeats))

    return score


def failed(worth, beside=(), marks=None):
    members = [graded(TEAM, 0.0, marks), *(graded(TEAM, s, sample=i + 1) for i, s in enumerate(beside))]
    return run(group(*members), at(worth))[0][0]


def test_a_failure_by_hand():
    """The group's mean is .75; V: ., 1, .5, 0. The solver's .25 rise counts from the mean."""
    credit = failed({(0, "rest"): 0.75, (1, "rest"): 1.0, (2, "rest"): 0.5}, beside=[1.0, 1.0, 1.0])
    # the critic lost .5 and the reviser .5: the first of equals is the culprit, and the sum needs no settling
    assert credit.values == pytest.approx((0.25, -0.5, -0.5))
    assert credit.notes[0].startswith("critic.0 led the team astray: the team lost 0.50")


def test_an_attempt_at_repair_gets_its_rise():
    credit = failed({(0, "rest"): 1.0, (1, "rest"): 0.0, (2, "rest"): 0.5}, beside=[1.0, 1.0, 1.0])
    assert credit.values[1] == pytest.approx(max(credit.values)) and credit.values[1] > 0
    assert "critic.0 tried to repair it: V rose by 0.50" in credit.notes


def test_a_group_of_one_still_names_the_culprit():
    """The sum is 0: what the culprit lost is made up by the others."""
    credit = failed({(0, "rest"): 1.0})  # the solver's error; V(1) = V(2) = 0
    assert credit.values == pytest.approx((-2 / 3, 1 / 3, 1 / 3))


def test_the_walk_is_asked_where_no_replay_tells():
    credit = failed({}, marks=[True, None, False])
    assert credit.values == pytest.approx((0.25 / 3, 0.25 / 3, -0.5 / 3)) and credit.notes[0].endswith("by the walk")


GAME = {frozenset({"solver"}): 0.5, frozenset({"solver", "critic"}): 0.5, frozenset({"solver", "reviser"}): 1.0}


def test_a_success_by_hand():
    """The critic is a dummy, the reviser adds .5 with the solver and nothing without: φ = (.75, 0, .25)."""
    members = graded(TEAM, 1.0), graded(TEAM, 0.0, sample=1)
    credit = run(group(*members), at(GAME))[0][0]
    assert credit.values == pytest.approx((0.375, 0.0, 0.125))  # their sum is 1 − .5
    assert credit.errors[1] >= 0 and credit.residual == pytest.approx(0)


def test_sabotage_on_a_success_stays_negative_and_is_damped():
    """Without the critic everybody is always right: φ of it is −, that of the others makes up for it."""
    game = {frozenset({"solver"}): 1.0, frozenset({"solver", "reviser"}): 1.0, frozenset({"solver", "critic"}): 0.0}
    credit = run(group(graded(TEAM, 1.0), graded(TEAM, 0.0, sample=1)), at(game))[0][0]
    phi = -1 / 6  # of the critic: it takes 1 from the solver alone, nothing from the whole team
    assert credit.values[1] == pytest.approx(0.1 * phi)
    assert sum(credit.values) == pytest.approx(0.5)


def test_dust_is_not_scaled_up_to_the_whole_reward():
    values, scale = reward_and_blame.scaled(np.array([2e-309, 0.5, 1e-12]), 1.0, 0.1)
    assert values.tolist() == [0, 1, 0] and np.isfinite(scale).all()


def test_an_agents_share_goes_to_its_messages_that_raised_the_worth():
    rise = np.array([[0.0] * 8, [0.0] * 8, [1.0] * 8, [1.0] * 8])
    weights = reward_and_blame.split(["solver", "solver", "critic"], {"solver": 1.0, "critic": 1.0}, rise, 0.25)
    assert weights.tolist() == [0.0, 1.0, 1.0]
    weights = reward_and_blame.split(["solver", "solver", "critic"], {"solver": 1.0, "critic": 1.0}, None, 0.25)
    assert weights.tolist() == [0.5, 0.5, 1.0]
    weights = reward_and_blame.split(["solver", "solver"], {"solver": -1.0}, rise[[0, 2, 0]], 0.25)
    assert weights.tolist() == [0.0, 1.0]  # harm goes to the drop


def test_the_record_holds_alternatives_to_the_culprit():
    score = at({(0, "rest"): 1.0, (0, "next"): 0.375})
    (credit,), asked = run(group(graded(TEAM, 0.0)), score)
    again = [r for r in asked if r.fresh == "next"]
    assert [(r.trace, r.keep, r.repeat, r.absent) for r in again] == [(0, 0, r, ()) for r in range(4)]
    assert credit.notes[-2] == "asked again, solver.0 came out right in 3 of 4 replays"
    _, asked = run(group(graded(TEAM, 0.0)), score, alternatives=0)
    assert not [r for r in asked if r.fresh == "next"]


def test_outside_the_share_all_messages_share_the_sum():
    members = group(graded(TEAM, 1.0), graded(["solver"], 0.0, sample=1))
    credits, asked = run(members, no_replays, share=0.0)
    assert not asked and [c.values for c in credits] == [pytest.approx((1 / 6,) * 3), (-0.5,)]


def test_scores_out_of_bounds_are_refused():
    with pytest.raises(MeritError, match="score 2;.*0..1"):
        run(group(graded(TEAM, 2.0)), no_replays)


@pytest.mark.parametrize("score", [0.0, 1.0])
def test_a_group_of_one_is_told_that_it_has_no_mean(score):
    (alone,), _ = run(group(graded(TEAM, score)), lambda r: 0.0)
    assert sum(alone.values) == pytest.approx(0) and "no mean to compare it with" in alone.notes[-1]
    beside, _ = run(group(graded(TEAM, score), graded(TEAM, 0.5, sample=1)), lambda r: 0.0)
    assert not any("no mean" in note for credit in beside for note in credit.notes)


def test_a_trace_without_turns_tells_what_it_could_not_give():
    credits, _ = run(group(graded([], 1.0), graded(["solver"], 0.0, sample=1), roles=TEAM), lambda r: 0.0)
    assert credits[0].values == () and credits[0].residual == -0.5
