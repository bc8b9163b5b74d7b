"""Who is let in, planned by the workflow itself: gather and promote are real, training and measuring are doubles with set effects.

Twelve validation tasks; of the untrained team's answers six are right. Each adapter rights or spoils a set number of tasks.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from apps import policies
from apps.evaluation import app as evaluation
from workflows import config, post_train
from workflows.plan import Node, Plan

TASKS, RIGHT = 12, 6
EFFECTS = {"solver": 3, "critic": -4, "reviser": 2, "verifier": 0}  # tasks that its adapter rights, or spoils
ROLES = list(EFFECTS)


class Rehearsed:
    """Carries a plan out, node by node. Only what decides who plays is made."""

    def __init__(self, root: Path) -> None:
        self.root, self.made = root, {}

    def folder(self, node: Node) -> Path:
        if node.key not in self.made:
            out = self.made[node.key] = self.root / node.stage.name / node.key
            out.mkdir(parents=True)
            inputs = {
                name: [self.folder(given) for given in nodes]
                for name, nodes in node.inputs.items()
                if node.stage.name in ("gather", "promote")
            }
            facts = getattr(self, node.stage.name)(node, out, inputs)
            (out / "facts.json").write_text(json.dumps(facts))
        return self.made[node.key]

    def base(self, node: Node, out: Path, inputs: dict) -> dict:
        return policies.base(out, inputs, node.options)

    def gather(self, node: Node, out: Path, inputs: dict) -> dict:
        return policies.gather(out, inputs, node.options)

    def promote(self, node: Node, out: Path, inputs: dict) -> dict:
        return evaluation.promote(out, inputs, node.options)

    def train(self, node: Node, out: Path, inputs: dict) -> dict:
        """An adapter of no weights that knows the round it was trained in."""
        (out / "adapter_model.safetensors").write_text(node.key)
        return {"agent": node.options["agent"], "digest": f"{node.options['agent']} of round {node.round}"}

    def measure(self, node: Node, out: Path, inputs: dict) -> dict:
        """Right on the first so many tasks."""
        (team,) = {shard.inputs["policies"][0] for shard in node.inputs["rollout"]}
        trained = [a for a, p in policies.read(self.folder(team)).items() if p.digest != "base"]
        right = RIGHT + sum(EFFECTS[agent] for agent in trained)
        (out / evaluation.FILE).write_text(
            json.dumps({"scores": {f"t{i:02}": [float(i < right)] for i in range(TASKS)}})
        )
        return {"right": right}


def planned(*words: str) -> tuple[Plan, dict[str, Node]]:
    plan = Plan()
    settings = config.load(config.PostTrain, None, ["rounds=2", "promotion.alpha=0.1", *words])
    return plan, post_train.dag(settings, plan)


def facts(folder: Path) -> dict:
    return json.loads((folder / "facts.json").read_text())


@pytest.fixture
def carried_out(tmp_path):
    def carry_out(*words: str):
        _, found = planned(*words)
        run = Rehearsed(tmp_path)
        report = found["report"].inputs
        decisions = [facts(run.folder(node)) for node in report["promote"]]
        curve = [sum(map(sum, evaluation.read(run.folder(node))["scores"].values())) for node in report["validation"]]
        return decisions, curve, policies.read(run.folder(found["team"]))

    return carry_out


def test_one_by_one_only_the_adapter_that_spoils_is_kept_out(carried_out):
    decisions, curve, team = carried_out("promotion.unit=adapter")
    assert [d["agents"] for d in decisions] == [[role] for role in ROLES] * 2
    assert [d["promoted"] for d in decisions] == [True, False, True, True] * 2
    differences = [round(d["difference"] * TASKS) for d in decisions]
    assert differences == [3, -4, 2, 0, 0, -4, 0, 0]  # each against the team as it stood by then
    assert {agent: policy.digest for agent, policy in team.items()} == {
        "solver": "solver of round 2", "critic": "base", "reviser": "reviser of round 2", "verifier": "verifier of round 2",
    }  # fmt: skip
    assert curve == [RIGHT, RIGHT + 5, RIGHT + 5]  # the team that the round left, also where the last one was refused


def test_together_the_others_carry_it_in(carried_out):
    decisions, curve, team = carried_out()
    assert [d["agents"] for d in decisions] == [ROLES] * 2
    assert [d["promoted"] for d in decisions] == [True, True]
    assert {policy.digest for policy in team.values()} == {f"{role} of round 2" for role in ROLES}
    assert curve == [RIGHT, RIGHT + 1, RIGHT + 1]


def test_a_refused_team_shows_its_own_scores_in_the_curve(carried_out, monkeypatch):
    monkeypatch.setitem(EFFECTS, "solver", -2)
    decisions, curve, team = carried_out()
    assert [d["promoted"] for d in decisions] == [False, False] and curve == [RIGHT, RIGHT - 4, RIGHT - 4]
    assert {policy.digest for policy in team.values()} == {"base"}


def test_a_refused_last_adapter_leaves_the_curve_at_the_team(carried_out, monkeypatch):
    monkeypatch.setitem(EFFECTS, "verifier", -4)
    _, curve, team = carried_out("promotion.unit=adapter")
    assert curve == [RIGHT, RIGHT + 5, RIGHT + 5] and team["verifier"].digest == "base"


def test_each_round_starts_from_the_team_that_the_last_one_left():
    plan, found = planned("promotion.unit=adapter")
    rounds = [
        [node for node in plan.nodes.values() if node.round == n and node.stage.name == "promote"] for n in (1, 2)
    ]
    assert [len(decisions) for decisions in rounds] == [len(ROLES)] * 2
    chain = [*rounds[0], *rounds[1]]
    assert (
        [n.inputs["policies"] for n in chain[1:]]
        == [n.inputs["scores"] for n in chain[1:]]
        == [[n] for n in chain[:-1]]
    )
    played = [node for node in plan.nodes.values() if node.round == 2 and node.stage.name in ("rollout", "train")]
    training = [n for n in played if n.stage.name == "train" or "validation" not in n.options["seed"]]
    assert {node.inputs["policies"][0].key for node in training} == {rounds[0][-1].key}
    assert found["team"] is chain[-1]


def test_what_is_tried_is_no_part_of_the_rule_that_decides():
    """The same decision on the same teams is one artifact, whatever the setting that led to it."""
    _, found = planned()
    assert found["team"].options["promotion"] == {"rule": "not_worse", "alpha": 0.1}
