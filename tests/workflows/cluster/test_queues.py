"""A job that no queue takes is answered with the nearest that one does: laws, and Aurora's own table by hand."""

from __future__ import annotations

import re
import runpy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.records import MeritError
from workflows import sites
from workflows.cluster import queues

AURORA = runpy.run_path(str(sites.FOLDER / "aurora" / "config.py"))["QUEUES"]
JOB = re.compile(r"queue=(\S+) nodes=(\d+) walltime=(\S+)")


@given(
    st.sampled_from(sorted({queue.name for queue in AURORA})),
    st.integers(1, 20_000),
    st.integers(60, 400 * 3600),
)
def test_what_is_offered_is_taken_and_what_is_taken_is_not_answered(name, nodes, asked):
    walltime = queues.clock(asked)
    taken = any(queue.name == name and queue.takes(nodes, asked) for queue in AURORA)
    try:
        queues.check(AURORA, name, nodes, walltime)
        assert taken
    except MeritError as error:
        assert not taken
        offers = JOB.findall(str(error).split("the nearest that there are: ")[1])
        assert 1 <= len(offers) <= queues.TOLD
        for other, near, time in offers:
            queues.check(AURORA, other, int(near), time)


@pytest.mark.parametrize(
    ("name", "nodes", "walltime", "nearest"),
    [
        ("debug", 3, "00:30:00", ("debug-scaling", "3", "00:30:00")),  # another queue takes the very job
        ("debug", 1, "01:00:01", ("capacity", "1", "01:00:01")),
        ("capacity", 17, "02:00:00", ("capacity", "16", "02:00:00")),
        ("prod", 255, "12:00:00", ("prod", "256", "12:00:00")),
        ("prod", 1024, "18:00:00", ("prod", "1025", "18:00:00")),  # one node more, and six hours more
        ("prod", 10_625, "24:00:00", ("prod", "10624", "24:00:00")),
    ],
)
def test_the_nearest_by_hand(name, nodes, walltime, nearest):
    with pytest.raises(MeritError) as error:
        queues.check(AURORA, name, nodes, walltime)
    assert JOB.findall(str(error.value).split("the nearest that there are: ")[1])[0] == nearest


def test_seventeen_nodes_for_two_hours_are_nowhere():
    """The gap of Aurora's table: the answer names the ways round it."""
    with pytest.raises(MeritError) as error:
        queues.check(AURORA, "prod", 100, "02:00:00")
    assert {offer[0] for offer in JOB.findall(str(error.value).split("are: ")[1])} == {
        "debug-scaling",
        "prod",
        "capacity",
    }


@given(st.integers(1, 10**6))
def test_the_clock_goes_both_ways(seconds):
    assert queues.seconds(queues.clock(seconds)) == seconds


@pytest.mark.parametrize("walltime", ["1h", "00:00:00", "10:00", "1:60:00", "-1:00:00", ""])
def test_a_walltime_that_is_none(walltime):
    with pytest.raises(MeritError, match="HH:MM:SS is expected"):
        queues.seconds(walltime)
