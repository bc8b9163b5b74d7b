"""The DAG of the fidelity benchmark: its parts, its faults, and what its keys depend on."""

from __future__ import annotations

import pytest
import yaml

from apps.records import MeritError
from workflows import config, fidelity
from workflows.plan import Plan

SMALL = {"cases": [{"name": "a", "seeds": [0, 1]}, {"name": "b", "topology": {"name": "malt"}, "seeds": [0]}]}


def recorded(*words):
    plan = Plan()
    fidelity.dag(config.load(fidelity.Config, None, words), plan)
    return plan


@pytest.fixture
def small(tmp_path):
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(SMALL))
    return f"faults={file}"


def test_each_part_is_there_alone_and_with_the_others(small):
    assert recorded("parts=[games]").counts() == {"contest": 1, "fidelity": 1}
    assert recorded("parts=[faults]", small).counts() == {"tasks": 1, "planted": 3, "fidelity": 1}
    alone = recorded("parts=[team]").counts()
    assert (alone["replay"], alone["compared"], alone["fidelity"]) == (2, 1, 1)
    together = recorded(small)
    assert len(together.nodes) == len(recorded("parts=[team]").nodes) + 1 + 4


def test_another_method_plays_the_cases_anew_but_leaves_the_games(small):
    first, second = recorded(small), recorded(small, "methods.extra={name: uniform}")
    new = {second.nodes[key].stage.name for key in second.nodes.keys() - first.nodes.keys()}
    assert new == {"planted", "replay", "compared", "fidelity"}


def test_the_code_of_a_method_is_part_of_the_key(small, tmp_path):
    """A method of one's own, edited: what it judges is judged again."""
    method = tmp_path / "mine.py"
    keys = []
    for worth in (0.0, 1.0):
        method.write_text(f"class Options: ...\nWORTH = {worth}\n")
        plan = Plan()
        keys.append(plan.add(fidelity.stages.PLANTED, methods={"mine": {"name": str(method)}}).key)
        from workflows import closure

        for cached in (closure._read, closure._digest):
            cached.cache_clear()
    assert keys[0] != keys[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["methods.mine={name: shaply}"], "did you mean 'shapley'"),
        (["methods.shapley={name: shapley, repeat: 3}"], "did you mean 'repeats'"),
        (["faults=nowhere.yaml"], "no such file"),
        (["games.budget=3"], "did you mean 'budgets'"),
        (["games.budgets=[60, 240]"], "games: budgets.0 = 60: .*equal to 156"),
        (["methods.tree={name: malt}"], "methods.tree: malt reads a tree of plays.*leave it out"),
        (["parts=[gamse]"], "parts"),
        (["adapters=nowhere"], "adapters=nowhere"),
    ],
)
def test_faults_in_what_is_asked_for_are_told(words, said):
    with pytest.raises(MeritError, match=said):
        recorded(*words)


def test_a_folder_without_adapters_is_told(tmp_path):
    with pytest.raises(MeritError, match="no adapter for any of solver, critic"):
        recorded("parts=[team]", f"adapters={tmp_path}")


def test_adapters_are_adopted_and_their_contents_decide(tmp_path):
    keys = set()
    for content in (b"1", b"2"):
        (tmp_path / "critic").mkdir(exist_ok=True)
        (tmp_path / "critic" / "adapter_model.safetensors").write_bytes(content)
        plan = recorded("parts=[team]", f"adapters={tmp_path}")
        keys |= {node.key for node in plan.nodes.values() if node.stage.name == "adopted"}
    assert len(keys) == 2
