"""Laws of every file in apps/credit: a value and an error a turn, finite, and blind to the order of traces."""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps import leaf
from apps.records import MeritError, Verdict
from tests.credit.plays import drive, graded, group

METHODS = leaf.names("credit")
DUTIES = {"solver": "solve", "critic": "check", "reviser": "revise"}
ROLES = tuple(DUTIES)


@st.composite
def groups(draw):
    members = []
    for sample in range(draw(st.integers(1, 4))):
        speakers = draw(st.lists(st.sampled_from(ROLES), max_size=5))
        marks = draw(st.lists(st.sampled_from([True, False, None]), min_size=len(speakers), max_size=len(speakers)))
        score = draw(st.sampled_from([0.0, 0.5, 1.0]))
        members.append(graded(speakers, score, marks, f"0.{sample}"))  # leaves of a tree, which some methods need
    return replace(group(*members, roles=ROLES), duties=DUTIES)


def chance(the_group):
    """A score for any replay that depends on what it starts from, not on its trace's place in the group."""

    def score(replay):
        trace = the_group.graded[replay.trace].trace
        start = tuple(turn.text for turn in trace.turns[: replay.keep]) if replay.fresh == "rest" else trace.id
        name = (start, replay.absent, replay.repeat)
        return float(zlib.crc32(repr(name).encode()) % 2)

    return score


def credits(name, the_group):
    method = leaf.find("credit", name)
    given, asked = drive(method.assign(the_group, method.Options()), chance(the_group))
    assert method.asks(method.Options()) or not asked
    return given


def test_the_folder_has_its_methods():
    assert {"uniform", "shapley", "first_error"} <= set(METHODS)


@pytest.mark.parametrize("name", METHODS)
@settings(max_examples=30, deadline=None)
@given(groups())
def test_each_turn_has_a_finite_value_and_error(name, the_group):
    for member, credit in zip(the_group.graded, credits(name, the_group), strict=True):
        assert credit.trace == member.trace.id
        assert len(credit.values) == len(credit.errors) == len(member.trace.turns)
        assert np.isfinite([*credit.values, *credit.errors, *credit.agents.values()]).all()
        assert min(credit.errors, default=0) >= 0
        assert set(credit.agents) == set(ROLES)


@pytest.mark.parametrize("name", METHODS)
@settings(max_examples=30, deadline=None)
@given(groups())
def test_the_order_of_traces_does_not_matter(name, the_group):
    turned = replace(the_group, graded=the_group.graded[::-1])
    assert credits(name, turned) == credits(name, the_group)[::-1]


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("score", [float("nan"), None])
def test_an_ungraded_trace_is_refused(name, score):
    member = replace(graded(["solver"], 1.0), verdict=None if score is None else Verdict(score, None, ""))
    with pytest.raises(MeritError, match=r"'t#0'.*grade it"):
        credits(name, group(member))


@pytest.mark.parametrize("name", METHODS)
def test_a_group_without_traces_is_refused(name):
    with pytest.raises(MeritError, match="'t' has no traces"):
        credits(name, group())
