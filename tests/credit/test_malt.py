"""MALT's values on a 2 × 2 × 2 tree by hand, and against a reference that knows nothing of the project."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.credit import malt
from apps.records import MeritError
from tests.credit.plays import drive, graded, group, no_replays

CHAIN = ("generator", "verifier", "refiner")
OUTCOMES = [1, 1, 1, 0, 0, 0, 1, 0]  # of the leaves 0.0.0, 0.0.1, …, 1.1.1


def leaf(branches, score):
    """A leaf whose turns are drawn by the branches taken so far."""
    member = graded(CHAIN, score, sample=".".join(map(str, branches)))
    turns = tuple(
        replace(turn, seed=hash_of(branches[: k + 1]), text=f"{turn.path} {branches[: k + 1]}")
        for k, turn in enumerate(member.trace.turns)
    )
    return replace(member, trace=replace(member.trace, turns=turns))


def hash_of(branches):
    return int("1" + "".join(map(str, branches)))


def tree(outcomes, width=2):
    return group(*(leaf(b, float(s)) for b, s in zip(product(range(width), repeat=3), outcomes, strict=True)))


def run(the_group, **options):
    return drive(malt.assign(the_group, malt.Options(**options)), no_replays)[0]


def test_by_hand():
    """V(v_00) = 1, V(v_01) = .5, V(g_0) = .75; V(v_10) = 0, V(v_11) = .5, V(g_1) = .25; the value is V − .5."""
    credits = run(tree(OUTCOMES))
    assert [c.values for c in credits] == [
        (0.25, 0.5, 0.5),
        (0.25, 0.5, 0.5),
        (0.25, 0.0, 0.5),
        (0.25, 0.0, -0.5),
        (-0.25, -0.5, -0.5),
        (-0.25, -0.5, -0.5),
        (-0.25, 0.0, 0.5),
        (-0.25, 0.0, -0.5),
    ]
    assert credits[0].errors == pytest.approx((0.25, 0.0, 0.0))  # of the mean of 1 and .5
    assert credits[2].notes[1:] == ("verifier.0: V = 0.50, neither", "refiner.0: V = 1.00, positive")


def test_a_dynamic_threshold_is_the_groups_mean():
    credits = run(tree([1, 0, 0, 0, 0, 0, 0, 0]), theta="dynamic")
    assert credits[0].values == pytest.approx((0.25 - 0.125, 0.5 - 0.125, 1 - 0.125))
    assert run(tree(OUTCOMES), threshold=0.25)[0].values == pytest.approx((0.5, 0.75, 0.75))


def test_unequal_branches_are_a_mean_of_means():
    """g has a verifier with one refiner that was right and one with three of which none was: V(g) = (1 + 0)/2."""
    leaves = [leaf((0, 0, 0), 1.0), *(leaf((0, 1, k), 0.0) for k in range(3))]
    assert run(group(*leaves))[0].values[0] == pytest.approx(0.5 - 0.5)
    assert run(group(*leaves), threshold=0.0)[0].values[0] == pytest.approx(0.5)  # not 1/4


def test_branches_that_say_the_same_remain_two():
    same = [leaf((0, 0, k), s) for k, s in ((0, 1.0), (1, 0.0))]
    alike = [
        replace(m, trace=replace(m.trace, turns=tuple(replace(t, text="same") for t in m.trace.turns))) for m in same
    ]
    assert [c.values[-1] for c in run(group(*alike))] == [0.5, -0.5]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 1), min_size=27, max_size=27))
def test_against_nested_means(outcomes):
    mean = lambda numbers: sum(numbers) / len(numbers)  # noqa: E731
    for index, credit in enumerate(run(tree(outcomes, 3))):
        i, j = index // 9, index // 3
        verifiers = [mean(outcomes[3 * v : 3 * v + 3]) for v in range(9)]
        expected = (mean(verifiers[3 * i : 3 * i + 3]), verifiers[j], outcomes[index])
        assert credit.values == pytest.approx([v - 0.5 for v in expected])


def test_independent_samples_are_refused():
    with pytest.raises(MeritError, match="'t#1' is an independent sample.*rollout.plan=tree"):
        run(group(graded(CHAIN, 1.0, sample=1)))
