"""Who is accused, which traces count for what, and rank correlation against another implementation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.fidelity import measures
from apps.fidelity.measures import Judged, Played

SPEAKERS = ("solver", "critic", "reviser")


def played(values, *, struck=None, outcome=0.0, undone=1.0, unit="t", truth=None, agents=None, **other):
    agents = agents if agents is not None else dict(zip(SPEAKERS, values, strict=True))
    judged = Judged(tuple(values), agents)
    truth = tuple(truth if truth is not None else [0.0] * len(values))
    return Played("case", unit, SPEAKERS, outcome, truth, {"m": judged}, struck or {}, undone, **other)


def figure(name, *traces):
    return measures.figures(traces, "m")[name]


@pytest.mark.parametrize(
    ("values", "place"),
    [((0, -0.5, 0), 1), ((-0.2, -0.5, -0.5), 1), ((0, -0.1, 0), None), ((0.9, 0.2, 0.3), None), ((), None)],
)
def test_the_lowest_value_is_accused_if_it_is_low_enough(values, place):
    assert measures.lowest(values) == place


def test_of_equal_agents_the_first_that_spoke_is_accused():
    trace = played((-0.5, -0.5, 0), agents={"critic": -0.5, "solver": -0.5, "absent": -0.5})
    assert measures.accused_agent(trace, trace.methods["m"]) == "solver"


def test_single_faults_that_made_the_team_fail():
    found = measures.figures(
        [
            played((0, -1, 0), struck={1: "wave_through"}, unit="a"),  # named
            played((-1, 0, 0), struck={1: "wave_through"}, unit="b"),  # somebody else
            played((0, 0, 0), struck={1: "wave_through"}, unit="c"),  # nobody
            played((-1, 0, 0), struck={1: "wave_through"}, undone=0.4, unit="d"),  # would have failed anyway
            played((-1, 0, 0), struck={1: "wave_through"}, outcome=1.0, unit="e"),  # mended
            played((-1, 0, 0), struck={1: "wave_through"}, habit=True, unit="f"),
        ],
        "m",
    )
    assert (found["agent_top1"]["value"], found["agent_top1"]["n"]) == (pytest.approx(1 / 3), 3)
    assert (found["turn_top1"]["value"], found["turn_top1"]["n"]) == (pytest.approx(1 / 3), 3)
    assert found["repaired_agent_top1"]["n"] == found["habit_agent_top1"]["n"] == 1
    assert found["double_agent"]["value"] is None and found["false_blame"]["n"] == 0


def test_agent_and_turn_are_judged_apart():
    agents = {"solver": 0.0, "critic": -1.0, "reviser": 0.0}
    trace = played((-0.3, 0.0, 0.0), agents=agents, struck={1: "cry_wolf"})
    assert figure("agent_top1", trace)["value"] == 1 and figure("turn_top1", trace)["value"] == 0


def test_one_agent_struck_twice_is_a_single_fault_and_either_turn_will_do():
    trace = Played("c", "t", ("solver", "critic", "critic"), 0.0, (0, 0, 0), {"m": Judged((0, 0, -1), {"critic": -1})},
                   {1: "cry_wolf", 2: "cry_wolf"}, 1.0)  # fmt: skip
    assert figure("turn_top1", trace)["value"] == 1 and figure("double_agent", trace)["n"] == 0


def test_double_faults():
    both = {0: "slip", 1: "wave_through"}
    found = measures.figures(
        [
            played((-0.5, -0.4, 0), struck=both, unit="a"),
            played((-0.5, 0.4, 0), struck=both, unit="b"),  # one is named, but the other is not below the innocent
            played((0, 0, -1), struck=both, unit="c"),
        ],
        "m",
    )
    assert found["double_agent"]["value"] == pytest.approx(2 / 3)
    assert found["double_both"]["value"] == pytest.approx(1 / 3)
    assert found["agent_top1"]["n"] == 0


def test_false_blame_is_any_accusation_where_nothing_struck():
    truth = (-0.5, 0.0, 0.0)
    found = measures.figures(
        [
            played((-1, 0, 0), truth=truth, unit="a"),  # for a turn that did cost something
            played((0, -1, 0), truth=truth, unit="b", planted=True),  # for one that did not
            played((0, 0, 0), truth=truth, unit="c"),
            played((0, 0, 0), truth=truth, unit="d", struck={0: "slip"}),
        ],
        "m",
    )
    assert (found["false_blame"]["value"], found["false_blame"]["n"]) == (pytest.approx(2 / 3), 3)
    assert found["false_blame_harmless"]["value"] == pytest.approx(1 / 3)
    assert found["false_blame_no_fault"]["value"] == 0.5 and found["false_blame_unstruck"]["value"] == 1


def test_sign_errors_are_of_turns_that_mattered():
    assert measures.sign_errors((1, -1, 0, 1), (-0.5, 0.05, 0.5, 0.5)) == [True, False, False]


def test_costs_are_means_over_traces():
    traces = [
        Played("c", "t", ("solver",), 1.0, (0.0,), {"m": Judged((0.0,), {}, replays, tokens)})
        for replays, tokens in [(1, 10), (3, 30)]
    ]
    found = measures.figures(traces, "m")
    assert (found["replays"], found["tokens"]) == (2, 20)


numbers = st.lists(st.integers(-3, 3).map(lambda n: n / 4), min_size=3, max_size=30)


def ranks(values):
    """By counting: how many are less, and half of the other equals."""
    return [sum(v < w for v in values) + (sum(v == w for v in values) - 1) / 2 for w in values]


@settings(deadline=None, max_examples=50)
@given(numbers, st.randoms(use_true_random=False))
def test_spearman_is_the_correlation_of_counted_ranks(values, random):
    other = [v + random.choice([-1, 0, 1, 2]) for v in values]
    found = measures.correlation(values, other, [str(i % 4) for i in range(len(values))])
    if np.ptp(values) == 0 or np.ptp(other) == 0:
        assert found["value"] is None
    else:
        assert found["value"] == pytest.approx(np.corrcoef(ranks(values), ranks(other))[0, 1])
        assert found["low"] is None or -1 - 1e-9 <= found["low"] <= found["high"] <= 1 + 1e-9


def test_a_sum_in_another_order_is_the_same_value():
    assert measures.centred_ranks([0.1 + 0.2, 0.3]).tolist() == [0, 0]
