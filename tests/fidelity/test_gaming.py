"""Signs of gamed credit, on traces by hand: each sign shows where it was planted, and nowhere else."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from apps.fidelity import gaming
from apps.records import Credit, Graded, Sampling, Trace, Turn, Verdict

CORRECT, INCORRECT = "VERDICT: CORRECT", "VERDICT: INCORRECT"


def turn(agent, text="", ids=None):
    ids = np.array([*text.encode(), 0] if ids is None else [*ids, 0], np.int32)
    return Turn(agent, f"{agent}.0", "", text, np.zeros(1, np.int32), ids, ids.astype("f4"), "base", Sampling(), 0)


def play(*turns, task="t", right=None):
    marks = tuple(None if mark is None else Verdict(float(mark), "1", "") for mark in right or [None] * len(turns))
    return Graded(Trace(task, "0", turns, "", True), Verdict(1.0, "1", ""), marks)


def report(graded, values):
    return gaming.report(
        graded, [Credit(g.trace.id, tuple(v), (0.0,) * len(v)) for g, v in zip(graded, values, strict=True)]
    )


def longer(count=30, sign=1.0):
    """The solver's value rises with its length, the critic's has nothing to do with it."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 40, count)
    graded = [
        play(turn("solver", "a" * n), turn("critic", "b" * rng.integers(1, 9)), task=str(i))
        for i, n in enumerate(lengths)
    ]
    return graded, [[sign * n / 40, rng.random()] for n in lengths]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_value_that_rises_with_length_is_seen_in_the_role_that_does_so(sign):
    found = report(*longer(sign=sign))["length"]
    assert found["solver"]["value"] == pytest.approx(sign) and found["solver"]["n"] == 30
    assert found["critic"]["low"] < 0 < found["critic"]["high"]
    assert 0.2 < sign * found["all"]["value"] < 0.8 and found["all"]["n"] == 60


def test_roles_of_different_length_are_not_compared():
    """Long solvers earn more than short critics; within either role length pays nothing."""
    graded = [
        play(turn("solver", "a" * (50 + i % 2)), turn("critic", "b" * (3 + i % 2)), task=str(i)) for i in range(40)
    ]
    found = report(graded, [[1.0 + (i // 2 % 2), i // 2 % 2] for i in range(40)])["length"]
    assert [found[name]["value"] for name in ("solver", "critic", "all")] == pytest.approx([0, 0, 0], abs=1e-9)


def test_copying_is_the_share_of_tokens_that_the_turn_before_said():
    assert np.isnan(gaming.copied(None, turn("solver", "ab")))
    shares = [
        gaming.copied(turn("solver", "abcd"), turn("critic", text)) for text in ("abcd", "xbyd", "dcba", "xyz", "")
    ]
    assert shares[:4] == [1.0, 0.5, 0.25, 0.0] and np.isnan(shares[4])


def test_value_of_copies_is_seen():
    graded = [
        play(turn("solver", "abcdef"), turn("reviser", "abcdef"[:n] + "xxxxxx"[n:]), task=str(n)) for n in range(7)
    ]
    found = report(graded, [[0.0, n / 7] for n in range(7)])["copying"]
    assert found["reviser"]["value"] == pytest.approx(1) and found["reviser"]["n"] == 7
    assert found["solver"] == {"value": None, "low": None, "high": None, "n": 0}  # nobody spoke before it


@settings(deadline=None)
@given(st.lists(st.integers(0, 4), max_size=80), st.lists(st.integers(0, 4), max_size=80))
def test_the_common_subsequence_is_the_longest(one, other):
    table = np.zeros((len(one) + 1, len(other) + 1), int)
    for i, a in enumerate(one):
        for j, b in enumerate(other):
            table[i + 1, j + 1] = table[i, j] + 1 if a == b else max(table[i, j + 1], table[i + 1, j])
    assert gaming.common(one, other) == table[-1, -1]


def test_the_correlation_is_spearmans_within_each_role():
    rng = np.random.default_rng(1)
    lengths, values = rng.integers(1, 6, (2, 50)), rng.integers(-2, 3, (2, 50)).astype(float)
    graded = [play(turn("s", "a" * lengths[0, i]), turn("c", "a" * lengths[1, i]), task=str(i)) for i in range(50)]
    found = report(graded, values.T.tolist())["length"]
    for place, role in enumerate("sc"):
        assert found[role]["value"] == pytest.approx(stats.spearmanr(lengths[place], values[place]).statistic, abs=1e-9)


def test_dust_of_shapley_weights_is_a_tie():
    graded = [play(turn("s", "a" * i), task=str(i)) for i in (1, 2, 3, 4)]
    dusty, clean = ([[0.1 + 0.2], [0.3], [1.0], [x]] for x in (1 - 1e-16, 1.0))
    assert report(graded, dusty) == report(graded, clean)


def agreements():
    """Bare agreement is worth .5 on right drafts and .2 on wrong ones; a checked one .5 and −.4."""
    said = {"bare": CORRECT, "checked": f"4 + 5 = 9. {CORRECT}"}
    worth = {("bare", True): 0.5, ("bare", False): 0.2, ("checked", True): 0.5, ("checked", False): -0.4}
    plays = [
        (
            play(turn("solver", "9"), turn("critic", said[how]), task=f"{how}{right}{i}", right=[right, None]),
            [0.0, value],
        )
        for (how, right), value in worth.items()
        for i in range(3)
    ]
    return [g for g, _ in plays], [v for _, v in plays]


def test_agreement_without_checking_is_set_beside_checked_agreement():
    found = report(*agreements())["agreement"]
    values = {(r, how): round(figure["value"], 9) for r, figures in found.items() for how, figure in figures.items()}
    assert values == {
        ("right", "bare"): 0.5, ("right", "checked"): 0.5, ("right", "bare_less_checked"): 0.0,
        ("wrong", "bare"): 0.2, ("wrong", "checked"): -0.4, ("wrong", "bare_less_checked"): 0.6,
    }  # fmt: skip
    assert [found["wrong"][how]["n"] for how in ("bare", "checked", "bare_less_checked")] == [3, 3, 6]


def test_other_turns_are_no_agreement():
    graded = [
        play(turn("solver", "9"), turn("critic", INCORRECT), right=[True, None]),
        play(turn("critic", CORRECT), task="u"),  # with nothing
        play(turn("solver", "9"), turn("critic", "CORRECT"), task="v", right=[True, None]),  # unreadable
    ]
    found = report(graded, [[0.0, 1.0], [1.0], [0.0, 1.0]])["agreement"]
    assert {figure["n"] for figures in found.values() for figure in figures.values()} == {0}


def test_the_latest_answer_is_the_draft():
    turns = [turn("solver", "8"), turn("critic", INCORRECT), turn("reviser", "9"), turn("critic", CORRECT)]
    found = report([play(*turns, right=[False, None, True, None])], [[0, 0, 0, 0.7]])["agreement"]
    assert found["right"]["bare"]["value"] == pytest.approx(0.7) and found["wrong"]["bare"]["n"] == 0


def test_intervals_draw_tasks_and_hold_the_truth():
    """Twenty traces of a task that are all alike say no more than one: the interval is that of the tasks."""
    rng, inside, widths = np.random.default_rng(3), 0, []
    for _ in range(60):
        mean = rng.normal(size=25)
        graded = [
            play(turn("s", "9"), turn("c", CORRECT), task=str(i), right=[True, None])
            for i in range(25)
            for _ in range(4)
        ]
        figure = report(graded, [[0.0, mean[i // 4]] for i in range(100)])["agreement"]["right"]["bare"]
        inside += figure["low"] <= 0 <= figure["high"]
        widths.append(figure["high"] - figure["low"])
    assert inside >= 50 and np.mean(widths) == pytest.approx(2 * 1.96 / 5, rel=0.15)


def test_a_single_task_has_no_interval_and_nothing_at_all_is_no_fault():
    graded, values = agreements()
    figure = report(graded[:1], values[:1])["agreement"]["right"]["bare"]
    assert figure == {"value": 0.5, "low": None, "high": None, "n": 1}
    assert json.dumps(report([], []))


def test_a_turn_that_traces_share_counts_once():
    root = turn("solver", "9")
    leaves = [
        Graded(Trace("t", str(i), (root, turn("critic", CORRECT)), "", True), Verdict(1.0, "1", ""), (None, None))
        for i in range(3)
    ]
    spoken = gaming.turns(leaves, [Credit(g.trace.id, (float(i), 0.0), (0.0, 0.0)) for i, g in enumerate(leaves)])
    assert [(s.agent, s.value) for s in spoken][:2] == [("solver", 1.0), ("critic", 0.0)] and len(spoken) == 4
