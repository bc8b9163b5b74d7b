"""The work and the memory of `assign` grow with the traces, not with their square. Counted, never timed."""

from __future__ import annotations

import cProfile
import pstats
import tracemalloc
from functools import partial

import pytest

from apps.credit import app, games
from tests.benchmarks import credit_scale

SIZES = (160, 320)  # traces, of 8 turns


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folders = [tmp_path_factory.mktemp("scale") / str(size) for size in SIZES]
    for folder, size in zip(folders, SIZES, strict=True):
        credit_scale.make(folder, size, 8)
        assign(folder, {"name": "shapley", "repeats": 1}, "first")  # what is imported or kept at the first call
    return folders


def assign(folder, section, name):
    inputs = {name: [folder / name] for name in ("tasks", "rollout", "grade")}
    if section["name"] == "shapley":
        inputs["replay"] = [folder / "replay"]
    out = folder / name / section["name"]
    out.mkdir(parents=True)
    return app.assign(out, inputs, {"credit": section, "topology": {"name": "solve_critique_revise"}})


def calls(work) -> int:
    profile = cProfile.Profile()
    profile.runcall(work)
    return pstats.Stats(profile).total_calls


def peak(work) -> int:
    tracemalloc.start()
    work()
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found


@pytest.mark.parametrize("section", credit_scale.METHODS, ids=lambda section: section["name"])
def test_twice_the_traces_are_twice_the_work_and_memory(shards, section):
    for measure, name in ((calls, "calls"), (peak, "peak")):
        small, large = (measure(partial(assign, folder, section, name)) for folder in shards)
        assert large < 2.2 * small, name


def test_all_traces_are_given_credit(shards):
    facts = assign(shards[0], {"name": "shapley", "repeats": 1}, "facts")
    assert (facts["traces"], facts["replays"]) == (160, 160 * 15) and facts["residual"] < 1e-9


def test_coefficients_of_twelve_players_are_worked_out_by_arrays():
    """4096 coalitions and 12 players: a loop over them would be fifty thousand calls."""
    games.coefficients.cache_clear()
    assert calls(lambda: games.coefficients(12)) < 2000
