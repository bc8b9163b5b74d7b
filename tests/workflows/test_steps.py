"""What a step's key depends on, and what is told while a run is planned."""

from __future__ import annotations

from pathlib import Path

import pytest

from apps import leaf
from apps.records import MeritError
from tests.workflows.test_closure import forget
from workflows import config, model, post_train
from workflows.plan import Plan

TOOL = '''"""Says how long a text is."""
from apps import records
class Options(records.Options):
    """Nothing to choose."""
def use(text):
    return str(len(text))
'''
TOPOLOGY = '''"""A solver that is told how long the question is."""
from apps import records
from apps.effects import Answer, Ask, Call
DUTIES = {{"solver": "solve"}}
ROLES = ("solver",)
PROMPTS = {{"solver": "{{question}} {{length}}"}}
USES = (("tools", "{folder}/length.py"),)
class Options(records.Options):
    """Nothing to choose."""
def play(task, options):
    length = yield Call("{folder}/length.py", {{"text": task.question}})
    return Answer((yield Ask("solver", {{"question": task.question, "length": length}})))
'''


@pytest.fixture
def keys(tmp_path):
    """The keys of a run of the user's own topology by stage, after some edits."""

    def planned(**edits: str) -> dict[str, set[str]]:
        texts = {"length": TOOL, "told": TOPOLOGY.format(folder=tmp_path), **edits}
        for name, text in texts.items():
            (tmp_path / f"{name}.py").write_text(text)
        forget()
        plan = Plan()
        words = ("engine.name=scripted", "rounds=1", f"topology.name={tmp_path / 'told.py'}")
        post_train.dag(config.load(config.PostTrain, None, words), plan)
        found: dict[str, set[str]] = {}
        for node in plan.nodes.values():
            found.setdefault(node.stage.name, set()).add(node.key)
        return found

    yield planned
    forget()


def test_an_edit_of_a_tool_makes_the_plays_again_that_it_was_used_in(keys):
    before, after = keys(), keys(length=TOOL.replace("len(text)", "len(text) + 1"))
    assert before["tasks"] == after["tasks"] and before["base"] == after["base"]
    for stage in ("rollout", "replay", "assign", "measure", "report"):
        assert not before[stage] & after[stage], stage
    assert keys(length=TOOL.replace("how long", "at what length")) == before


def test_a_used_leaf_that_is_not_there_is_answered_with_the_nearest(keys, tmp_path):
    told = TOPOLOGY.format(folder=tmp_path).replace(f"{tmp_path}/length.py", "calculater")
    leaf.find.cache_clear()
    with pytest.raises(MeritError, match=r"tools: there is no 'calculater'; did you mean 'calculator'\?"):
        keys(told=told)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["credit.name=malt", "rollout.plan=independent"], r"reads a tree of plays.*set rollout.plan=tree"),
        (["credit.name=shapley", "credit.protocols={solvr: base}"], r"credit.protocols: role: .*did you mean 'solver'"),
        (["credit.name=owen", "credit.unions={critik: a}"], r"credit.unions: role: .*did you mean 'critic'"),
        (["credit.name=process_reward", f"credit.adapter={Path(__file__).parent}"], "no adapter in PEFT format"),
        (["credit.name=judge", "credit.temperature=0"], "^credit.judge: at temperature 0 a judge repeats itself"),
    ],
)
def test_credit_that_cannot_be_had_is_told_before_anything_is_played(words, said):
    with pytest.raises(MeritError, match=said):
        planned(*words)


def planned(*words: str) -> Plan:
    plan = Plan()
    post_train.dag(config.load(config.PostTrain, None, ("engine.name=scripted", "rounds=1", *words)), plan)
    return plan


def test_a_method_that_wants_a_tree_is_given_one_wherever_credit_is_worked_out():
    for name, plans in (("malt", {"tree"}), ("uniform", {"tree", "independent"})):
        nodes = planned(f"credit.name={name}", "rollout.plan=tree").nodes
        credited = [key for node in nodes.values() if node.stage.name == "assign" for key in inputs_of(node, "rollout")]
        assert {nodes[key].options["plan"]["name"] for key in credited} == plans


def inputs_of(node, name: str) -> list[str]:
    return [one.key for one in node.inputs[name]]


def test_no_path_has_no_digest_and_a_wrong_one_is_told_with_the_nearest(tmp_path, monkeypatch):
    assert model.fingerprint("") == ""
    (tmp_path / "rows.jsonl").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert model.fingerprint("rows.jsonl") == model.fingerprint(str(tmp_path / "rows.jsonl"))
    with pytest.raises(MeritError, match=r"^tasks.path=row.jsonl: .*; did you mean 'rows.jsonl'\?"):
        model.fingerprint("row.jsonl", "tasks.path")
    with pytest.raises(MeritError, match=rf"no such file or folder \(looked for in {Path.cwd()}\)"):
        model.fingerprint("elsewhere", "tasks.path")
