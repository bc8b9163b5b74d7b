"""Warm processes of inference leave a node that is lent; all others stay."""

from __future__ import annotations

import os
import platform

import pytest

from apps.platform import processes, room, tether


def pid() -> int:
    return os.getpid()


@pytest.fixture
def warm():
    """Processes of a pool by what their environment says, kept until the end."""
    yield lambda **env: processes.run("room", pid, env=env)
    processes.close()


def test_only_those_that_were_lent_by_the_same_run_on_this_machine_are_ended(warm):
    here = {tether.NODE: platform.node()}
    lent = warm(**here, MERIT_LENDS="/runs/a/parsl")
    others = [
        warm(**here, MERIT_LENDS="/runs/b/parsl"),
        warm(**{tether.NODE: "another"}, MERIT_LENDS="/runs/a/parsl"),
        warm(**here),
    ]
    assert room.make({}) == 0, "a run that borrows nothing ends nobody"
    assert room.make({room.BORROWS: "/runs/a/parsl"}) == 1
    for other in others:
        os.kill(other, 0)
    assert warm(**here, MERIT_LENDS="/runs/a/parsl") != lent, "when it is asked again there is a new one"


def test_another_user_of_proc_is_no_fault(warm):
    assert room.make({room.BORROWS: "/nobody"}) == 0
