"""The batch builder on traces made by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from apps.credit.turns import valued
from apps.records import Credit, MeritError, Sampling, Trace, Turn
from apps.training.advantages import grpo
from apps.training.build import rows_of
from tests.models import ids

NUMBER = iter(range(1000))


def turn(agent, state=1, said=None, **more):
    """A turn of `agent` that saw `state` and said a token of its own."""
    completion = ids(said if said is not None else 100 + next(NUMBER), 4)
    logprobs = np.array([-0.5, -0.25], np.float32)
    given = Turn(agent, f"{agent}.0", "", "", ids(state), completion, logprobs, "base", Sampling(temperature=0.7), 1)
    return replace(given, **more)


def trace(sample, *turns, task="t"):
    return Trace(task, str(sample), turns, "", True)


def values(traces, numbers, outcomes=None):
    credit = [Credit(t.id, tuple(v), (0.0,) * len(v)) for t, v in zip(traces, numbers, strict=True)]
    return valued(traces, credit, outcomes or [0.0] * len(traces))


def by_value(turns):
    """An estimator that hands the values on."""
    return np.array([t.value for t in turns])


def said(rows):
    return [int(completion[0]) for completion in rows.completions]


def test_an_agents_rows_are_its_own_turns_as_they_were_sampled():
    solver, critic = turn("solver", 1, 11), turn("critic", 2, 12)
    rows = rows_of("critic", values([trace(0, solver, critic)], [[0.5, -0.25]]), by_value, {"advantages"})
    assert said(rows) == [12] and rows.advantages.tolist() == [-0.25] and rows.temperature == 0.7
    assert rows.prompts[0] is critic.prompt_ids and rows.logprobs[0] is critic.logprobs and not rows.paired


def test_what_a_stand_in_spoke_and_what_is_empty_is_left_out_but_counts_as_a_turn():
    stand_in = turn("solver", stand_in="base")
    substitute = turn("solver", completion_ids=ids(), finish="substitute", stand_in="bypass")
    silent = turn("solver", completion_ids=ids())
    own = turn("solver", said=7)
    found = values([trace(0, stand_in, substitute, silent, own)], [[1, 2, 3, 4]])
    assert [(int(t.completion_ids[0]), v.value, v.index) for t, v in found] == [(7, 4, 3)]


def test_a_turn_that_traces_share_is_one_row_with_the_mean_of_its_values():
    root = turn("solver", said=1)
    leaves = [trace(f"0.{i}", root, turn("critic", said=2 + i)) for i in range(3)]
    found = values(leaves, [[1.0, 1.0], [0.0, 0.0], [0.5, 0.5]], [1.0, 0.0, 1.0])
    assert [(int(t.completion_ids[0]), v.value, v.outcome) for t, v in found] == [
        (1, 0.5, pytest.approx(2 / 3)), (2, 1.0, 1.0), (3, 0.0, 0.0), (4, 0.5, 1.0),
    ]  # fmt: skip


def test_equal_turns_that_are_not_one_are_two_rows():
    found = values([trace(i, turn("solver", said=5)) for i in range(2)], [[1.0], [0.0]])
    assert [v.value for _, v in found] == [1.0, 0.0]


def test_turns_without_an_advantage_are_dropped():
    traces = [trace(i, turn("solver", said=i)) for i in range(4)]
    found = values(traces, [[1.0], [2.0], [3.0], [4.0]])
    given = np.array([np.nan, 0.5, 0.0, -0.5])
    rows = rows_of("solver", found, lambda t: given, {"advantages"})
    assert said(rows) == [1, 3] and rows.advantages.tolist() == [0.5, -0.5]


def test_grpo_gives_the_check_values_and_a_group_without_variance_gives_nothing():
    lively = [trace(i, turn("solver", said=i), task="a") for i in range(4)]
    dull = [trace(i, turn("solver", said=9), task="b") for i in range(4)]
    found = values(lively + dull, [[1.0], [1.0], [0.0], [0.0]] + [[1.0]] * 4)
    rows = rows_of("solver", found, lambda t: grpo.advantages(t, grpo.Options()), {"advantages"})
    assert said(rows) == [0, 1, 2, 3]
    assert np.allclose(rows.advantages, [0.866, 0.866, -0.866, -0.866], atol=1e-3)


def test_sft_learns_from_positive_advantages_only():
    found = values([trace(i, turn("solver", said=i)) for i in range(4)], [[0.5], [-0.5], [0.0], [2.0]])
    rows = rows_of("solver", found, by_value, frozenset())
    assert said(rows) == [0, 3] and rows.advantages.tolist() == [1.0, 1.0] and not rows.paired


def pairs(*members):
    """Pairs of (state, value, said) as [(preferred, rejected)]."""
    found = values(
        [trace(i, turn("solver", state, what)) for i, (state, _, what) in enumerate(members)],
        [[v] for _, v, _ in members],
    )
    rows = rows_of("solver", found, by_value, {"pairs", "reference"})
    assert rows.paired
    words = said(rows)
    return list(zip(words[0::2], words[1::2], strict=True))


def test_pairs_are_of_one_state_the_best_with_the_worst():
    assert pairs((1, 0.2, 2), (1, 1.0, 1), (1, 0.8, 3), (1, 0.0, 4)) == [(1, 4), (3, 2)]
    assert pairs((1, 1.0, 1), (1, 0.5, 2), (1, 0.0, 3)) == [(1, 3)]  # the middle one has no partner
    assert pairs((1, 1.0, 1), (2, 0.0, 2)) == []  # other states are no alternatives


def test_ties_and_equal_completions_make_no_pair():
    assert pairs((1, 0.5, 1), (1, 0.5, 2)) == []
    assert pairs((1, 1.0, 1), (1, 0.0, 1)) == []
    assert pairs((1, 1.0, 1), (1, 0.0, 2), (1, 0.0, 3), (1, 0.0, 4)) == [(1, 4)]


def test_states_of_different_tasks_are_kept_apart():
    traces = [trace(0, turn("solver", 1, 1), task="a"), trace(0, turn("solver", 1, 2), task="b")]
    assert len(rows_of("solver", values(traces, [[1.0], [0.0]]), by_value, {"pairs"})) == 0


def test_credit_of_other_traces_is_refused():
    traces = [trace(0, turn("solver")), trace(1, turn("solver"))]
    credit = [Credit(t.id, (1.0,), (0.0,)) for t in reversed(traces)]
    with pytest.raises(MeritError, match="credit for 't#1' with 1 values meets the trace 't#0'"):
        valued(traces, credit, [0.0, 0.0])
    with pytest.raises(MeritError, match="2 values meets the trace 't#0' with 1 turns"):
        valued(traces[:1], [Credit("t#0", (1.0, 2.0), (0.0, 0.0))], [0.0])
