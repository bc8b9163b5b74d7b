"""Dr.GRPO, RLOO, REINFORCE++ and Dr.MAS: against plain Python, by hand, and by what tells them apart."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps import leaf
from apps.records import Valued
from apps.training.advantages import dr_grpo, dr_mas, grpo, reinforce_plus_plus, rloo
from tests.training.valued import run, turn

NAN = float("nan")
EPSILON = 0.25  # large, so that it is seen
TURNS = st.lists(
    st.builds(
        Valued,
        task=st.sampled_from("ab"),
        trace=st.sampled_from("pqr"),
        agent=st.sampled_from("xy"),
        index=st.integers(0, 1),
        state=st.just("s"),
        value=st.integers(-3, 3).map(float),
        outcome=st.just(0.0),
    ),
    max_size=24,
)


def same(expected):
    return pytest.approx(expected, abs=1e-9, nan_ok=True)


def others(turns, one, *fields):
    """Values of the turns that agree with `one` in `fields`, itself included."""
    return [t.value for t in turns if all(getattr(t, f) == getattr(one, f) for f in fields)]


def mean(values):
    return sum(values) / len(values)


def deviation(values):
    return math.sqrt(sum((v - mean(values)) ** 2 for v in values) / (len(values) - 1))


def scalar_dr_grpo(turns, one):
    group = others(turns, one, "task", "agent", "index")
    return one.value - mean(group) if len(set(group)) > 1 else NAN


def scalar_rloo(turns, one):
    """The mean of the others, written as it is defined."""
    group = others(turns, one, "task", "agent", "index")
    return one.value - (sum(group) - one.value) / (len(group) - 1) if len(set(group)) > 1 else NAN


def scalar_reinforce_plus_plus(turns, one):
    batch = [t.value for t in turns]
    return (one.value - mean(batch)) / (deviation(batch) + EPSILON) if len(set(batch)) > 1 else NAN


def scalar_baseline(turns, one):
    centred = [scalar_dr_grpo(turns, t) for t in turns]
    said = [c for c in centred if not math.isnan(c)]
    return scalar_dr_grpo(turns, one) / (deviation(said) + EPSILON) if said else NAN


def scalar_dr_mas(turns, one):
    group = others(turns, one, "task", "agent")
    return (one.value - mean(group)) / (deviation(group) + EPSILON) if len(set(group)) > 1 else NAN


CASES = [
    (dr_grpo, {}, scalar_dr_grpo),
    (rloo, {}, scalar_rloo),
    (reinforce_plus_plus, {"epsilon": EPSILON}, scalar_reinforce_plus_plus),
    (reinforce_plus_plus, {"epsilon": EPSILON, "baseline": True}, scalar_baseline),
    (dr_mas, {"epsilon": EPSILON}, scalar_dr_mas),
]


@pytest.mark.parametrize(("module", "options", "scalar"), CASES)
@settings(max_examples=60, deadline=None)
@given(turns=TURNS)
def test_equals_the_scalar_formula(module, options, scalar, turns):
    assert run(module, turns, **options) == same([scalar(turns, one) for one in turns])


@pytest.mark.parametrize(
    ("name", "up"),
    [("dr_grpo", 0.5), ("rloo", 2 / 3), ("dr_mas", 0.8660254), ("reinforce_plus_plus", 0.8660254)],
)
def test_the_check_values(name, up):
    """[1, 1, 0, 0]: R − mean = ±.5; less the mean of the others 1 − 1/3; divided by the deviation .57735, ±.866."""
    turns = [turn(value, f"t#{i}") for i, value in enumerate([1, 1, 0, 0])]
    found = run(leaf.find("training/advantages", name), turns)
    assert found == pytest.approx([up, up, -up, -up], abs=1e-5)


def test_a_batch_of_unequal_tasks_is_whitened_together():
    """Values 1, 1, 1, 0 of two tasks: mean 3/4, deviation 1/2. The task that is always solved is pushed up too."""
    turns = [
        turn(1.0, "a#0", task="a"),
        turn(1.0, "a#1", task="a"),
        turn(1.0, "b#0", task="b"),
        turn(0.0, "b#1", task="b"),
    ]
    assert run(reinforce_plus_plus, turns, epsilon=0.0) == same([0.5, 0.5, 0.5, -1.5])
    half = math.sqrt(0.5)  # ±.5 of two: deviation √.5
    assert run(reinforce_plus_plus, turns, epsilon=0.0, baseline=True) == same([NAN, NAN, 0.5 / half, -0.5 / half])


def test_agents_with_unlike_rewards_get_gradients_of_one_size():
    """The critic's rewards are ten times the solver's: with Dr.MAS both have ±.707, with Dr.GRPO the unit stays."""
    turns = [turn(1.0), turn(0.0, "t#1"), turn(10.0, agent="critic"), turn(0.0, "t#1", agent="critic")]
    root = math.sqrt(0.5)
    assert run(dr_mas, turns, epsilon=0.0) == same([root, -root, root, -root])
    assert run(dr_grpo, turns) == same([0.5, -0.5, 5.0, -5.0])
    whitened = run(reinforce_plus_plus, turns, epsilon=0.0)
    assert whitened[0] < 0 < whitened[2]  # one mean for all: the solver's success counts as a failure


def test_speaking_again_costs_what_it_is_worth():
    """Two short traces are right, two long ones wrong. Among second turns alone there is nothing to compare."""
    short = [turn(1.0, f"t#{i}") for i in range(2)]
    long = [turn(0.0, f"t#{i}", index=index) for i in (2, 3) for index in (0, 1)]
    second = [3, 5]
    by_number, by_agent = run(grpo, short + long), run(dr_mas, short + long)
    assert all(math.isnan(by_number[i]) for i in second)
    assert all(by_agent[i] < 0 for i in second)


@pytest.mark.parametrize(("module", "options", "scalar"), CASES)
def test_a_group_without_variance_gives_no_gradient_beside_one_that_has_it(module, options, scalar):
    dull = [turn(1.0, f"a#{i}", task="a") for i in range(3)]
    lively = [turn(float(i), f"b#{i}", task="b") for i in range(3)]
    found = run(module, dull + lively, **options)
    over_the_batch = scalar is scalar_reinforce_plus_plus
    assert all(math.isnan(a) for a in found[:3]) != over_the_batch
    assert found[3] < found[5]
