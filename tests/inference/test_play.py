"""A play flattened: the paths of its turns, the order of results, and what is refused."""

from __future__ import annotations

import re

import pytest

from apps.effects import Answer, Ask, Call, Play, Score
from apps.inference.play import flatten
from apps.records import MeritError
from tests import models
from tests.inference import games

TASK = models.tasks(1)[0]


def drive(playing, uses=(*games.USES, ("topologies", "single"), ("topologies", "malt"))):
    """Answers every effect with its own path; gives the waves of paths and the Answer."""
    flat, sent, waves = flatten(playing, uses=uses), None, []
    while True:
        try:
            wants = flat.send(sent)
        except StopIteration as end:
            return waves, end.value
        sent = [want.path for want in wants]
        waves.append(sent)


def test_a_path_counts_the_times_that_a_role_was_asked():
    waves, answer = drive(games.repeating(TASK))
    assert waves == [["solver.0"], ["solver.1"], ["solver.2"]]
    assert answer == Answer("solver.0 solver.1 solver.2")


def test_nested_plays_go_on_side_by_side_and_their_paths_are_joined():
    waves, answer = drive(games.side_by_side(TASK))
    team = "solve_critique_revise.0/"
    assert waves == [
        ["solver.0", "solver.1", f"{team}solver.0"],
        [f"{team}critic.0"],
        [f"{team}reviser.0"],
        [f"{team}critic.1"],
        [f"{team}reviser.1"],
        [f"{team}verifier.0"],
        ["solver.2"],
    ]
    assert answer.text == f"solver.0 | solver.1 | {team}verifier.0 | solver.2"


def test_children_of_different_length_get_their_own_results():
    def play():
        results = yield [Play("single", TASK), Play("malt", TASK), Call("calculator", {}), Play("single", TASK)]
        return Answer(",".join(results))

    waves, answer = drive(play())
    assert waves[0] == ["single.0/solver.0", "malt.0/generator.0", "calculator.0", "single.1/solver.0"]
    assert waves[1:] == [["malt.0/verifier.0"], ["malt.0/refiner.0"]]
    assert answer.text == "single.0/solver.0,malt.0/refiner.0,calculator.0,single.1/solver.0"


def test_a_list_of_none_or_one_is_still_a_list():
    def play():
        nothing = yield []
        one = yield [Ask("solver", {})]
        return Answer(f"{nothing} {one}")

    assert drive(play())[1].text == "[] ['solver.0']"


@pytest.mark.parametrize(
    ("kind", "words"),
    [("rubbish", "it may yield Ask"), ("no_answer", "must return an Answer"), ("no_generator", "must be a generator")],
)
def test_a_topology_that_breaks_its_contract_is_told_so(kind, words):
    with pytest.raises(MeritError, match=words):
        drive(games.KINDS[kind](TASK))


@pytest.mark.parametrize(
    ("effect", "named"),
    [
        (Call("calculator"), ("tools", "calculator")),
        (Score("exact_number", "1"), ("reward", "exact_number")),
        (Play("single", TASK), ("topologies", "single")),
    ],
)
def test_what_a_topology_does_not_declare_is_refused(effect, named):
    """Its code would be in no key. A name declared for another folder does not do, nor the same beside it in a list."""

    def play(*effects):
        yield list(effects)
        return Answer("")

    assert drive(play(effect), uses=(named,))[0]
    elsewhere = tuple((folder, named[1]) for folder in ("tools", "reward", "topologies") if folder != named[0])
    for uses in ((), elsewhere):
        with pytest.raises(MeritError, match=re.escape(f"{named!r} to USES")):
            drive(play(Ask("solver", {}), effect), uses=uses)


def test_a_nested_team_declares_for_itself():
    """What the outer topology uses is not lent to the inner one."""

    def play():
        yield Play(games.NAME, TASK, {"kind": "undeclared"})
        return Answer("")

    with pytest.raises(MeritError, match=re.escape("('tools', 'tests.inference.games') to USES")):
        drive(play(), uses=(("topologies", games.NAME), ("tools", games.NAME)))


def test_a_leaf_given_by_its_file_is_called_by_its_stem():
    def play():
        yield [Call("mine/tool.py"), Call("mine/tool.py")]
        return Answer("")

    assert drive(play(), uses=(("tools", "mine/tool.py"),))[0] == [["tool.0", "tool.1"]]


def test_a_wrong_option_of_a_nested_team_is_told_so():
    def play():
        yield Play("solve_critique_revise", TASK, {"round": 2})

    with pytest.raises(MeritError, match="did you mean 'rounds'"):
        drive(play())
