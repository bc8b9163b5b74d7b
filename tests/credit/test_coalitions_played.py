"""Methods of coalitions through the stages `replay` and `assign`, by scripted agents: what really stood in is told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from apps.credit import app, results
from apps.records import Replay
from tests.credit import shard

OPTIONS = shard.options(4, 3, {"solve": 0.5, "revise": 0.4, "wave_through": 0.4})
METHODS = {
    "shapley": {"name": "shapley", "repeats": 2, "interactions": True},
    "cheap": {"name": "leave_one_out", "repeats": 2},
    "banzhaf": {"name": "banzhaf", "repeats": 2},
    "owen": {"name": "owen", "repeats": 2, "unions": {"critic": "review", "reviser": "review"}},
    "first": {"name": "shapley", "repeats": 2, "infeasible": "leave_out"},
    "turns": {"name": "shapley", "repeats": 2, "level": "turn"},
    "task": {"name": "shapley", "repeats": 2, "game": "task"},
    "sampled": {"name": "shapley", "sampling": "antithetic", "width": 0, "budget": 40},
    "base": {"name": "shapley", "repeats": 2, "protocol": "base"},
    "null": {"name": "shapley", "repeats": 2, "protocol": "null"},
    "cached": {"name": "shapley", "repeats": 2, "protocol": "cached"},
}


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """A shard, and the credit that each method gives it from one record that all share."""
    root = tmp_path_factory.mktemp("coalitions")
    inputs, facts = shard.played(root, {**OPTIONS, "methods": list(METHODS.values())})
    credit = {}
    for name, section in METHODS.items():
        (root / name).mkdir(exist_ok=True)
        facts[name] = app.assign(root / name, inputs, {**OPTIONS, "credit": section})
        credit[name] = results.read(root / name)
    return app.read_groups(inputs, OPTIONS), results.read_replays(inputs["replay"][0]), credit, facts


def test_what_methods_ask_alike_is_played_once(played):
    """Only fresh plays, single turns, other stand-ins and further draws cost anything on top of Shapley's replays."""
    _, record, _, facts = played
    asked = [r for findings in record.values() for r in findings if isinstance(r, Replay)]
    bypassed = [
        r for r in asked
        if r.repeat < 2 and not r.fresh and all(p == "bypass" and "." not in a for a, p in r.absent)
    ]  # fmt: skip
    assert len(bypassed) == facts["shapley"]["replays"] == facts["banzhaf"]["replays"] > facts["cheap"]["replays"]
    assert facts["first"]["replays"] < facts["shapley"]["replays"]


def test_efficient_methods_leave_no_residual(played):
    _, _, _, facts = played
    for name in set(METHODS) - {"cheap", "banzhaf"}:
        assert facts[name]["residual"] < 1e-9
    assert facts["cheap"]["residual"] is facts["banzhaf"]["residual"] is None


def test_who_could_not_be_absent_is_told(played):
    """Nobody can be left out for the solver: the base model drafts in its place, or it comes first in every order."""
    groups, _, credit, _ = played
    for name in ("shapley", "cheap", "banzhaf", "owen", "turns"):
        for given in credit[name]:
            solver = "solver.0" if name == "turns" else "solver"
            (note,) = (n for n in given.notes if "could not be absent" in n)
            assert note.startswith(f"{solver} could not be absent by bypass: base stood in for ")
    for name in ("base", "null"):
        assert not any("could not" in note for given in credit[name] for note in given.notes)
    told = {note.split(" stood in")[0] for given in credit["cached"] for note in given.notes if "could not" in note}
    assert told == {"reviser could not be absent by cached: bypass"}  # no other play of the task had asked it
    scores = [graded.verdict.score for group in groups for graded in group.graded]
    for given, score in zip(credit["first"], scores, strict=True):
        assert any(note.startswith("solver cannot be absent: first in every order") for note in given.notes)
        assert sum(given.values) == pytest.approx(score)


def test_what_stands_in_defines_the_game(played):
    _, record, credit, _ = played
    for protocol in ("base", "null", "cached"):
        mine = [o for findings in record.values() for r, o in findings.items() if protocol in dict(r.absent).values()]
        assert {did for o in mine for _, did in o.stand_ins} - ({"bypass"} if protocol == "cached" else set()) == {
            protocol
        }
    games = {name: [c.agents for c in credit[name]] for name in ("shapley", "base", "null", "cached")}
    assert all(games[a] != games[b] for a in games for b in games if a < b)
    assert all(
        o.score == 0 for findings in record.values() for r, o in findings.items()
        if len(r.absent) == 4 and set(dict(r.absent).values()) == {"null"}
    )  # fmt: skip


def test_the_tasks_game_is_the_same_for_all_traces_of_a_task(played):
    _, _, credit, _ = played
    for start in range(0, len(credit["task"]), 3):
        same = credit["task"][start : start + 3]
        assert len({c.trace.split("#")[0] for c in same}) == 1 and len({tuple(c.agents.items()) for c in same}) == 1


def test_an_agents_value_is_the_sum_of_its_turns(played):
    groups, _, credit, _ = played
    traces = [graded.trace for group in groups for graded in group.graded]
    for name in set(METHODS) - {"task"}:
        for given, trace in zip(credit[name], traces, strict=True):
            for agent, value in given.agents.items():
                own = [v for v, turn in zip(given.values, trace.turns, strict=True) if turn.agent == agent]
                assert sum(own) == pytest.approx(value)


def test_a_lone_trace_has_nothing_cached(played):
    groups, _, _, _ = played
    from apps.credit import shapley
    from apps.records import MeritError

    alone = replace(groups[0], graded=groups[0].graded[:1])
    with pytest.raises(MeritError, match="cached.*single trace"):
        next(shapley.assign(alone, shapley.Options(protocol="cached")))
