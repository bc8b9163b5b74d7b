"""Rounds that overlap are labelled: who was trained off-policy, and what was said while new weights were tried that were refused."""

from __future__ import annotations

import json
from pathlib import Path

from apps import artifacts
from apps.report import summary
from apps.report.rounds import Round, digests, off_policy


def artifact(
    root: Path, stage: str, key: str, inputs: dict[str, list[str]], team: dict[str, str] | None = None
) -> Path:
    with artifacts.new(root, stage, key, {"options": {}, "inputs": inputs}) as out:
        if team is not None:
            (out / "policies.json").write_text(json.dumps({agent: {"digest": d} for agent, d in team.items()}))
    return artifacts.locate(root, stage, key)


def test_who_was_trained_from_other_weights_than_spoke(tmp_path):
    """By hand: the team spoke with (s1, c1); new weights s2 were let in, the critic's were refused; then both are trained."""
    spoke = artifact(tmp_path, "promote", "a" * 32, {}, {"solver": "s1", "critic": "c1"})
    newest = artifact(tmp_path, "promote", "b" * 32, {}, {"solver": "s2", "critic": "c1"})
    batch = artifact(tmp_path, "batch", "c" * 32, {"policies": [spoke.name]})

    def trained_from(team: Path) -> Round:
        inputs = {"batch": [batch.name], "policies": [team.name]}
        agents = {a: artifact(tmp_path, "train", f"{team.name[0]}{a[0]}" * 16, inputs) for a in ("solver", "critic")}
        return Round(2, agents, (batch,))

    known = digests([spoke, newest, batch])
    assert known == {"a" * 32: {"solver": "s1", "critic": "c1"}, "b" * 32: {"solver": "s2", "critic": "c1"}}
    assert off_policy(trained_from(newest), known) == ["solver"]
    assert off_policy(trained_from(spoke), known) == []


def test_whose_new_weights_a_round_did_not_let_in():
    promotions = [
        {"round": 1, "agents": ["solver"], "promoted": True},
        {"round": 1, "agents": ["critic"], "promoted": False},
        {"round": 2, "agents": ["solver"], "promoted": False},
    ]
    assert [summary.refused(promotions, number) for number in (0, 1, 2)] == [[], ["critic"], ["solver"]]
