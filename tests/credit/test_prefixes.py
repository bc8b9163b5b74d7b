"""What beginnings are worth, who lost the answer, and a turn against its siblings: by hand, and on a team that plays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.credit import counterfactual, first_error, prefixes
from apps.records import MeritError
from tests.credit.plays import drive, graded, group, no_replays

TEAM = ("solver", "critic", "reviser")


def runs(worth, repeats=8):
    """A score for each replay of one trace: `worth` is V by kept turns, or by (kept turns, protocol)."""

    def score(replay):
        protocol = replay.absent[0][1] if replay.absent else ""
        share = worth.get((replay.keep, protocol), worth.get((replay.keep, ""), worth.get(replay.keep, 0.0)))
        return float(replay.repeat < round(share * repeats))

    return score


def adapted(member):
    """The same trace, spoken by adapters: the base model can stand in."""
    turns = tuple(replace(turn, policy="own") for turn in member.trace.turns)
    return replace(member, trace=replace(member.trace, turns=turns))


def by_replay(score, worth, marks=None, speakers=TEAM, own=True, **options):
    member = graded(speakers, score, marks)
    the_group = group(adapted(member) if own else member)
    (credit,), asked = drive(first_error.assign(the_group, first_error.Options(by="replay", **options)), runs(worth))
    return credit, asked


def rows(*shares, repeats=8):
    return np.array([[float(r < round(share * repeats)) for r in range(repeats)] for share in shares])


def test_equal_beginnings_are_asked_once_for_the_first_trace():
    other = graded(["solver", "critic"], 1.0, sample=1)
    turns = (other.trace.turns[0], replace(other.trace.turns[1], text="something else"))
    the_group = group(graded(TEAM, 0.0), replace(other, trace=replace(other.trace, turns=turns)))
    measured = prefixes.measure(the_group, 2)
    asked = next(measured)
    assert [(r.trace, r.keep, r.repeat) for r in asked] == [(0, k, r) for k in range(3) for r in range(2)]
    assert {r.fresh for r in asked} == {"rest"}


def test_the_last_value_is_the_outcome_and_errors_are_of_means():
    sizes, errors = prefixes.drops(rows(0.75, 0.25, 0.0))
    assert sizes == pytest.approx([0.5, 0.25])
    # paired: four repeats of eight fell, then two of eight
    assert errors == pytest.approx([np.sqrt(0.25 * 8 / 7 / 8), np.sqrt(0.25 * 0.75 * 8 / 7 / 8)])


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 1), min_size=4, max_size=4), min_size=2, max_size=6))
def test_drops_telescope(scores):
    scores = np.array(scores, dtype=float)
    assert prefixes.drops(scores)[0].sum() == pytest.approx(scores[0].mean() - scores[-1].mean())


def test_what_was_regained_was_not_lost():
    """V: 1, 0, 1, 0, 0. The first drop is as large as the second, but the team was right again."""
    loss = prefixes.worst([(dict(enumerate(rows(1, 0, 1, 0))), "")], rows(1, 0, 1, 0, 0), 0.25)
    assert (loss.turn, loss.size) == (2, 1.0)


def test_a_small_or_unsure_loss_is_none():
    assert prefixes.worst([(dict(enumerate(rows(0.125, 0))), "")], rows(0.125, 0, 0), 0.25) is None
    assert prefixes.locate(np.array([0.5]), np.array([0.3]), 0.25) is None
    assert prefixes.locate(np.array([0.3, 0.5, 0.5]), np.array([0.1, 0.1, 0.1]), 0.25) == 1
    assert prefixes.locate(np.array([0.5, 0.3]), np.array([0.1, 0.1]), 0.25, start=1) == 1


def test_an_error_left_is_blamed_by_what_it_cost():
    credit, _ = by_replay(0.0, {0: 0.875, 1: 0.75, 2: 0.0}, [True, None, False], own=False)
    assert credit.values == (0, -0.75, 0)  # the critic, whatever the walk says of the reviser
    assert credit.notes[0].startswith("critic.0 led the team astray, for good")


def test_who_always_errs_is_found_by_the_base_model():
    """The reviser's own replays err too: V is 0 everywhere."""
    credit, asked = by_replay(0.0, {(2, "base"): 1.0}, [True, None, False])
    assert credit.values == (0, 0, -1.0) and "with the base model in its place" in credit.notes[0]
    assert 'turned ("repaired") a right answer into a wrong one' in credit.notes[0]
    assert {r.absent for r in asked if r.keep == 2} == {(), (("reviser", "base"),)}


def test_an_agent_that_errs_often_is_told_from_bad_luck_before_it():
    """Another draft would have saved the team in half of the plays, the base model for the critic in all."""
    credit, _ = by_replay(0.0, {0: 0.5, 1: 0.125, (0, "base"): 0.5, (1, "base"): 1.0})
    assert credit.values == (0, -1.0, 0)


def test_the_base_model_is_its_own_stand_in_and_bypassing_is_tried_last():
    credit, asked = by_replay(0.0, {(1, "bypass"): 1.0}, own=False)
    assert credit.values == (0, -1.0, 0) and "bypassed" in credit.notes[0]
    assert {dict(r.absent).get(TEAM[r.keep], "") for r in asked} == {"", "bypass"}
    _, asked = by_replay(0.0, {0: 1.0}, own=False)
    assert not [r for r in asked if r.absent]  # a sure drop needs no bypassing


def test_where_no_replay_tells_the_walk_decides():
    credit, _ = by_replay(0.0, {}, [False, None, False])
    assert credit.values == (-1.0, 0, 0) and credit.notes == ("solver.0 gave the first answer and it was wrong",)


def test_an_error_that_was_mended_costs_little_and_the_repair_is_rewarded():
    credit, asked = by_replay(1.0, {0: 1.0, 1: 0.125, 2: 0.125}, [False, None, True])
    assert credit.values == pytest.approx((-0.1 * 0.875, 0, 0.5 * 0.875))
    assert credit.notes[0].startswith("solver.0 introduced an error, which was repaired")
    assert not [r for r in asked if r.absent]  # nobody is replaced in a success
    undamped, _ = by_replay(1.0, {0: 1.0, 1: 0.125, 2: 0.125}, mended=1.0)
    assert undamped.values[0] == pytest.approx(-0.875)


def test_a_success_without_a_drop_blames_nobody():
    credit, _ = by_replay(1.0, {0: 0.875, 1: 1.0, 2: 1.0})
    assert credit.values == (0, 0, 0) and "nobody" in credit.notes[0]


def test_a_task_outside_the_share_is_walked():
    the_group = group(graded(TEAM, 0.0, [True, None, False]))
    options = first_error.Options(by="replay", share=0.0)
    (credit,), asked = drive(first_error.assign(the_group, options), no_replays)
    assert not asked and credit.values == (0, 0, -1.0) and not first_error.asks(options)


def test_a_replay_without_a_score_is_refused():
    the_group = group(graded(TEAM, 0.0))
    for method, options in (
        (first_error, first_error.Options(by="replay")),
        (counterfactual, counterfactual.Options()),
    ):
        with pytest.raises(MeritError, match="replay of 't#0' has the score nan"):
            drive(method.assign(the_group, options), lambda r: float("nan"))


def against_siblings(the_group, score, **options):
    return drive(counterfactual.assign(the_group, counterfactual.Options(**options)), score)


def test_a_turn_less_the_mean_of_its_siblings():
    shares = {0: 0.5, 1: 0.25, 2: 1.0}
    (credit,), asked = against_siblings(group(graded(TEAM, 1.0)), lambda r: float(r.repeat < 4 * shares[r.keep]))
    assert credit.values == pytest.approx((0.5, 0.75, 0.0))
    assert credit.errors == pytest.approx((np.sqrt(0.25 / 3), np.sqrt(0.25 * 0.75 / 3), 0.0))
    assert [(r.keep, r.repeat) for r in asked] == [(k, r) for k in range(3) for r in range(4)]
    assert {r.fresh for r in asked} == {"next"} and not any(r.absent for r in asked)


def leaf(branches, score):
    member = graded(["solver", "critic"], score, sample=".".join(map(str, branches)))
    turns = (
        replace(member.trace.turns[0], seed=branches[0] + 1, text=f"draft {branches[0]}"),
        replace(member.trace.turns[1], seed=10 * branches[0] + branches[1] + 1, text=f"review {branches[1]}"),
    )
    return replace(member, trace=replace(member.trace, turns=turns))


def test_recorded_siblings_of_a_tree_come_first_and_cost_nothing():
    """2 × 2 leaves 1, 0, 0, 0: the drafts are worth .5 and 0, and each is the other's only sibling."""
    tree = group(*(leaf(b, s) for b, s in (((0, 0), 1.0), ((0, 1), 0.0), ((1, 0), 0.0), ((1, 1), 0.0))))
    credits, asked = against_siblings(tree, no_replays, siblings=1)
    assert not asked
    assert [c.values for c in credits] == [(0.5, 1.0), (0.5, -1.0), (-0.5, 0.0), (-0.5, 0.0)]
    assert credits[0].errors[0] == pytest.approx(np.std([1, 0], ddof=1) / np.sqrt(2))  # of its two leaves
    _, asked = against_siblings(tree, lambda r: 0.0, siblings=3)
    assert len(asked) == 3 * 2  # two more for each of three contexts


def test_the_same_words_are_worth_the_same():
    """Three plays of a solver that always says 42; the verifier of the last misreads it: that alone is blamed."""
    members = []
    for sample, (said, score) in enumerate((("42", 1.0), ("42", 1.0), ("45", 0.0))):
        member = graded(["solver", "verifier"], score, sample=sample)
        turns = tuple(
            replace(turn, seed=10 * sample + k, text=text)
            for k, (turn, text) in enumerate(zip(member.trace.turns, ("42", said), strict=True))
        )
        members.append(replace(member, trace=replace(member.trace, turns=turns)))
    credits, asked = against_siblings(group(*members), no_replays, siblings=2)
    assert not asked
    assert [c.values for c in credits] == [(0, 0.5), (0, 0.5), (0, -1.0)]


def test_a_sampled_turn_that_repeats_recorded_words_tells_nothing_new():
    mine = (("solver.0", 7, "42"),)
    value, _, _ = counterfactual.advantage(mine, {mine: [0.0]}, [("42", 0.0), ("40", 1.0)])
    assert value == -0.5  # against 42, worth 0 as its own, and 40, worth 1
    assert counterfactual.outcomes({mine: [0.0]}, [("42", 1.0), ("40", 1.0), ("40", 0.0)]) == {"42": [0], "40": [1, 0]}


def test_siblings_are_calibrated():
    """Value less truth over its error has a spread near 1, for independent siblings."""
    rng = np.random.default_rng(3)
    the_group = group(graded(["solver"], 1.0))
    z = []
    for _ in range(600):
        (credit,), _ = against_siblings(the_group, lambda r: rng.normal(0.4, 0.2), siblings=16)
        z.append((credit.values[0] - 0.6) / credit.errors[0])
    assert np.std(z) == pytest.approx(1.0, abs=0.15) and abs(np.mean(z)) < 0.15


def test_a_task_outside_the_share_gets_the_centred_score():
    members = group(graded(["solver"], 1.0), graded(["solver"], 0.0, sample=1))
    credits, asked = against_siblings(members, no_replays, share=0.0)
    assert not asked and [c.values for c in credits] == [(0.5,), (-0.5,)]
