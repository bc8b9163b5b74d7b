"""Advantages: laws of every estimator, and hand-worked groups."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps import leaf
from apps.records import MeritError, Valued
from apps.training.advantages import at_grpo, at_grpo_two_level, grpo, threshold
from tests.training.valued import run, turn

NAMES = leaf.names("training/advantages")
ESTIMATORS = [name for name in NAMES if not hasattr(leaf.find("training/advantages", name), "TOKENS")]  # one a turn
IN_UNITS_OF_CREDIT = {"dr_grpo", "rloo", "threshold"}  # they do not divide by a deviation
WITHOUT_GROUPS = {"threshold"}  # compared with a constant
OVER_THE_BATCH = {"reinforce_plus_plus"}  # one statistic for all tasks
NAN = float("nan")


def same(expected):
    return pytest.approx(expected, abs=1e-5, nan_ok=True)


TURNS = st.lists(
    st.builds(
        Valued,
        task=st.sampled_from("ab"),
        trace=st.sampled_from("pqr"),
        agent=st.sampled_from("xy"),
        index=st.integers(0, 1),
        state=st.sampled_from("uv"),
        value=st.integers(-3, 3).map(float),
        outcome=st.sampled_from([0.0, 1.0]),
    ),
    max_size=20,
)


def test_the_folder_has_its_estimators():
    assert {"grpo", "at_grpo", "at_grpo_two_level", "dr_mas"} | IN_UNITS_OF_CREDIT | OVER_THE_BATCH <= set(ESTIMATORS)
    assert set(NAMES) - set(ESTIMATORS) == {"gae"}


@pytest.mark.parametrize("name", ESTIMATORS)
@settings(max_examples=60, deadline=None)
@given(turns=TURNS, data=st.data())
def test_one_float64_a_turn_whatever_their_order(name, turns, data):
    module = leaf.find("training/advantages", name)
    result = module.advantages(turns, module.Options())
    assert result.shape == (len(turns),) and result.dtype == np.float64
    order = data.draw(st.permutations(range(len(turns))))
    shuffled = module.advantages([turns[i] for i in order], module.Options())
    assert shuffled.tolist() == same(result[order].tolist())


@pytest.mark.parametrize("name", ESTIMATORS)
@settings(max_examples=60, deadline=None)
@given(turns=TURNS, scale=st.integers(1, 5))
def test_a_positive_scale_of_credit_does_not_matter_or_is_handed_on(name, turns, scale):
    module = leaf.find("training/advantages", name)
    stretched = [replace(turn, value=scale * turn.value) for turn in turns]
    options, factor = (module.Options(), scale) if name in IN_UNITS_OF_CREDIT else (module.Options(epsilon=0.0), 1)
    assert module.advantages(stretched, options).tolist() == same((factor * module.advantages(turns, options)).tolist())


@pytest.mark.parametrize("name", sorted(set(ESTIMATORS) - OVER_THE_BATCH))
@settings(max_examples=60, deadline=None)
@given(turns=TURNS)
def test_tasks_do_not_touch_each_other(name, turns):
    module = leaf.find("training/advantages", name)
    together = dict(zip(range(len(turns)), module.advantages(turns, module.Options()), strict=True))
    for task in "ab":
        mine = [i for i, turn in enumerate(turns) if turn.task == task]
        alone = module.advantages([turns[i] for i in mine], module.Options())
        assert alone.tolist() == same([together[i] for i in mine])


@pytest.mark.parametrize("name", sorted(set(ESTIMATORS) - WITHOUT_GROUPS))
def test_a_single_turn_and_a_group_without_variance_give_no_gradient(name):
    module = leaf.find("training/advantages", name)
    assert run(module, [turn(1.0)]) == same([NAN])
    dust = [turn(0.1 + 0.2, "t#0"), turn(0.3, "t#1"), turn(0.3, "t#2")]
    assert run(module, dust) == same([NAN] * 3)
    assert run(module, []) == []


def test_a_threshold_keeps_what_is_above_it_also_where_all_are():
    right, wrong = turn(1.0), turn(0.0, "t#1")
    assert run(threshold, [right]) == same([1.0]) and run(threshold, [right, right]) == same([1.0, 1.0])
    assert run(threshold, [right, wrong, turn(0.1 + 0.2 - 0.3, "t#2")]) == same([1.0, NAN, NAN])
    assert run(threshold, [right, wrong, turn(0.25, "t#2")], threshold=0.25) == same([0.75, -0.25, NAN])


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_turn_without_credit_is_named(name):
    with pytest.raises(MeritError, match="'critic' in trace 't#7' has the credit nan"):
        run(leaf.find("training/advantages", name), [turn(0.0), turn(NAN, "t#7", "critic")])


@pytest.mark.parametrize("name", ["grpo", "at_grpo"])
def test_the_check_value(name):
    """[1, 1, 0, 0]: R − mean = ±.5, std with n − 1 = .57735."""
    turns = [turn(value, f"t#{i}") for i, value in enumerate([1, 1, 0, 0])]
    assert run(leaf.find("training/advantages", name), turns) == same([0.866025, 0.866025, -0.866025, -0.866025])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=2, max_size=10).filter(lambda v: np.ptp(v) > 0.01))
def test_grpo_centres_a_group_and_gives_it_unit_spread(values):
    result = np.array(run(grpo, [turn(value, f"t#{i}") for i, value in enumerate(values)], epsilon=0.0))
    assert result.mean() == pytest.approx(0, abs=1e-9)
    assert result.std(ddof=1) == pytest.approx(1)


def test_epsilon_is_added_to_the_deviation():
    assert run(grpo, [turn(1.0, "t#0"), turn(0.0, "t#1")], epsilon=0.5) == same([0.414214, -0.414214])


def test_grpo_compares_the_same_agents_same_turn():
    turns = [
        turn(1.0, "t#0", "solver", 0),
        turn(5.0, "t#0", "critic", 0),
        turn(7.0, "t#0", "solver", 1),
        turn(0.0, "t#1", "solver", 0, state="other"),
        turn(5.0, "t#1", "critic", 0),
    ]
    assert run(grpo, turns) == same([0.707106, NAN, NAN, -0.707106, NAN])


def test_at_grpo_compares_turns_from_one_state_only():
    turns = [
        turn(1.0, "t#0", state="u"),
        turn(0.0, "t#1", state="u"),
        turn(4.0, "t#2", state="v"),
        turn(3.0, "t#3", state="u", agent="critic"),
        turn(2.0, "t#0", state="u", index=1),
    ]
    assert run(at_grpo, turns) == same([0.0, -1.0, NAN, NAN, 1.0])


def test_at_grpo_mixes_the_outcome_in_by_alpha():
    """Rewards 2·[1, 0, 1] + [0, 0, 3] = [2, 0, 5]: mean 7/3, std √(19/3)."""
    turns = [turn(v, f"t#{i}", outcome=o) for i, (v, o) in enumerate([(0.0, 1.0), (0.0, 0.0), (3.0, 1.0)])]
    expected = (np.array([2, 0, 5]) - 7 / 3) / np.sqrt(19 / 3)
    assert run(at_grpo, turns, alpha=2.0) == same(expected.tolist())
    assert run(at_grpo, turns) == same([-0.57735, -0.57735, 1.154701])
    with pytest.raises(MeritError, match="score nan"):
        run(at_grpo, [replace(turns[0], outcome=NAN)], alpha=1.0)


def test_two_levels_by_hand():
    """Solver speaks twice in trace 0, once in trace 1; the critic once in each.

    Agent level: sums solver 3, 1 and critic 0, 0: mean 1, std √2. Turn level: solver 2, 1, 1: mean 4/3, std 1/√3;
    critic 0, 0 has no variance there, so only its agent level counts.
    """
    turns = [
        turn(2.0, "t#0", "solver", 0),
        turn(0.0, "t#0", "critic", 0),
        turn(1.0, "t#0", "solver", 1),
        turn(1.0, "t#1", "solver", 0),
        turn(0.0, "t#1", "critic", 0),
    ]
    by_agent = np.array([2, -1, 2, 0, -1]) / np.sqrt(2)
    by_turn = np.array([2 / 3, 0, -1 / 3, -1 / 3, 0]) * np.sqrt(3)
    mixed = 0.25 * by_agent + 0.75 * by_turn
    assert run(at_grpo_two_level, turns, alpha=0.25) == same(mixed.tolist())
    assert run(at_grpo_two_level, turns, alpha=1.0) == same(by_agent.tolist())
    assert run(at_grpo_two_level, turns, alpha=0.0) == same([1.154701, NAN, -0.57735, -0.57735, NAN])
