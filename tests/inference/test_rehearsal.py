"""Templates are checked against what a topology offers, before any model speaks; a topology that cannot rehearse is left in peace."""

from __future__ import annotations

import sys
import types

import pytest

from apps import answer, leaf, records
from apps.effects import Answer, Ask, Call, Score
from apps.inference import rehearsal
from apps.records import MeritError
from tests.inference import games

TEAM = "solve_critique_revise"
OFFERED = {"solver": {"question"}, "critic": {"question", "draft"}, "verifier": {"question", "draft"}}
OFFERED["reviser"] = {"question", "draft", "review"}


@pytest.fixture
def topology(monkeypatch):
    """Makes a topology of a play."""

    def make(play, uses=()):
        module = types.ModuleType("rehearsed")
        module.Options, module.play, module.USES = type("Options", (records.Options,), {}), play, uses
        module.ROLES, module.DUTIES = ("solver",), {"solver": "solve"}
        monkeypatch.setitem(sys.modules, "mylab.rehearsed", module)
        leaf.find.cache_clear()
        return "mylab.rehearsed"

    yield make
    leaf.find.cache_clear()


def asked(name: str, **options) -> list[Ask]:
    return [ask for text in rehearsal.TEXTS for ask in rehearsal.asked(name, options, text)]


@pytest.mark.parametrize("name", leaf.names("topologies"))
def test_every_role_of_a_built_in_topology_is_reached_and_its_own_prompts_fit(name):
    module = leaf.find("topologies", name)
    assert {ask.role for ask in asked(name)} == set(module.ROLES)
    rehearsal.check(name, {}, module.PROMPTS)


def test_what_each_role_is_offered():
    assert {ask.role: set(ask.fields) for ask in asked(TEAM, rounds=3)} == OFFERED


@pytest.mark.parametrize(
    ("role", "field"), [(role, field) for role in OFFERED for field in ("question", "draft", "review")]
)
def test_a_field_is_refused_just_where_it_is_not_offered(role, field):
    prompts = {role: f"{{{{as it is}}}} {{{field}!r:>20}}"}
    if field in OFFERED[role]:
        rehearsal.check(TEAM, {}, prompts)
    else:
        with pytest.raises(MeritError, match=rf"team.prompts.{role}: field: there is no '{field}' .*known: question"):
            rehearsal.check(TEAM, {}, prompts)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{quesion}", r"did you mean 'question'\? \(known: question\)"),
        ("{}", r"there is no ''"),
        ("{0}", r"there is no '0'"),
        ("{question", r"team.prompts.solver: .*expected '}'.* write {{ and }}"),
        ("}", r"team.prompts.solver: Single '}'"),
        ("{question} {answer.text[0]}", r"there is no 'answer'"),
    ],
)
def test_a_bad_template_is_told_with_its_role(template, message):
    with pytest.raises(MeritError, match=message):
        rehearsal.check("single", {}, {"solver": template})


def test_what_depends_on_a_fields_value_is_left_to_the_run():
    rehearsal.check("single", {}, {"solver": "{question[3000]} {question:>9}"})


def test_tools_and_verifiers_are_not_run(topology):
    def play(task, options):
        worked = yield Call("calculator", {"expression": "os.remove('/')"})
        verdict = yield Score("nowhere", worked)
        yield Ask("solver", {"worked": worked, "right": str(verdict.right)})
        return Answer("")

    name = topology(play, (("tools", "calculator"), ("reward", "nowhere")))
    assert [set(ask.fields) for ask in rehearsal.asked(name, {}, "so")] == [{"worked", "right"}]


def test_whoever_was_asked_before_a_play_broke_is_checked(topology):
    def play(task, options):
        draft = yield Ask("solver", {"question": task.question})
        raise RuntimeError(f"{draft} is not what I expected")

    name = topology(play)
    rehearsal.check(name, {}, {"solver": "{question}"})
    with pytest.raises(MeritError, match="there is no 'draft'"):
        rehearsal.check(name, {}, {"solver": "{draft}"})


def test_a_team_that_argues_until_someone_gives_in_is_cut_short(topology):
    def play(task, options):
        while answer.verdict((yield Ask("solver", {"question": task.question}))) is None:
            pass
        return Answer("")

    assert len(rehearsal.asked(topology(play), {}, "no")) == rehearsal.WAVES
    assert len(rehearsal.asked(topology(play), {}, "VERDICT: CORRECT")) == 1


@pytest.mark.parametrize("kind", ["rubbish", "no_answer", "no_generator", "undeclared", "tooled", "side_by_side"])
def test_faults_of_a_topology_are_told_when_it_is_played(kind):
    rehearsal.check(games.NAME, {"kind": kind}, {"solver": "{question}"})
