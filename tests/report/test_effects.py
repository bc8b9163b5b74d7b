"""What a method moves against its own ablation: figures found, differences by seed, and what did not move as wanted."""

from __future__ import annotations

import json

import pytest

from apps.records import MeritError
from apps.report import effects
from workflows import effects as workflow
from workflows.config import validated
from workflows.plan import Plan

ROW = {
    "name": "dpo",
    "kind": "Preference",
    "against": "shuffled credit",
    "figure": "team",
    "file": "s.json",
    "path": ["a", 0],
    "wanted": "higher",
}


def arms(tmp_path, given, ablated):
    inputs = {}
    for arm, values in (("given", given), ("ablated", ablated)):
        for seed, value in enumerate(values):
            folder = tmp_path / arm / str(seed)
            folder.mkdir(parents=True)
            (folder / "s.json").write_text(json.dumps({"a": [value]}))
            inputs.setdefault(f"{arm}/Preference/dpo", []).append(folder)
    return inputs


def test_differences_by_seed_and_what_did_not_move(tmp_path):
    inputs = arms(tmp_path, [0.5, 0.4], [0.25, 0.5])
    out = tmp_path / "out"
    out.mkdir()
    facts = effects.effects(out, inputs, {"rows": [ROW], "seeds": [0, 1]})
    assert facts == {"methods": 1, "as_wanted": 0}
    (row,) = json.loads((out / "effects.json").read_text())["rows"]
    assert row["given"] == [0.5, 0.4] and row["difference"] == pytest.approx([0.25, -0.1])
    assert (
        "| `dpo` | shuffled credit | team (higher) | 0.450 | 0.375 | +0.250, -0.100 * |"
        in (out / "effects.md").read_text()
    )
    assert effects.moved({**ROW, "wanted": "lower"}, arms(tmp_path / "less", [0.1], [0.2]))["as_wanted"]
    assert not effects.moved(ROW, arms(tmp_path / "same", [0.2], [0.2]))["as_wanted"]


def test_a_figure_that_is_not_there_is_named(tmp_path):
    with pytest.raises(MeritError, match="dpo looks for"):
        effects.moved({**ROW, "path": ["b"]}, arms(tmp_path, [1], [1]))
    with pytest.raises(MeritError, match="a number was expected"):
        effects.moved({**ROW, "path": ["a"]}, arms(tmp_path / "b", [1], [1]))


def test_every_method_of_the_file_makes_a_plan_whose_arms_differ():
    _, methods = workflow.read(workflow.METHODS)
    assert len({(method.kind, method.name) for method in methods}) == len(methods)
    plan = Plan()
    config = validated(workflow.Config, {"seeds": [0], "name": "effects"})
    node = workflow.dag(config, plan)["effects"]
    for method in methods:
        given, ablated = (node.inputs[f"{arm}/{method.kind}/{method.name}"][0] for arm in ("given", "ablated"))
        assert given.key != ablated.key, method.name


def test_every_objective_and_advantage_has_a_row():
    from apps import leaf

    _, methods = workflow.read(workflow.METHODS)
    named = {method.name for method in methods}
    for folder in ("training/objectives", "training/advantages"):
        assert not set(leaf.names(folder)) - named


def test_a_method_that_is_not_in_the_file_is_answered_with_the_nearest():
    with pytest.raises(MeritError, match="dpo"):
        workflow.dag(validated(workflow.Config, {"only": ["dpoo"], "name": "effects"}), Plan())
