"""The evaluation stages: files in, files out. (A second `test_app.py` could not be collected beside credit's.)"""

from __future__ import annotations

import json

import pytest

from apps import policies
from apps.evaluation import app
from apps.inference import traces
from apps.records import Policy
from apps.reward import verdicts
from apps.topologies.solve_critique_revise import DUTIES
from tests.evaluation.plays import PLAYS


def test_the_stage_writes_what_it_measured(tmp_path):
    for shard, plays in ((tmp_path / "0", PLAYS[:4]), (tmp_path / "1", PLAYS[4:])):
        shard.mkdir()
        traces.write(shard / traces.FILE, [g.trace for g in plays])
        verdicts.write(shard, plays)
    shards = [tmp_path / "0", tmp_path / "1"]
    facts = app.measure(tmp_path, {"rollout": shards, "grade": shards}, {"topology": {"name": "solve_critique_revise"}})
    assert facts == {"accuracy": 0.5, "single": 0.5, "n": 3}
    assert app.read(tmp_path) == json.loads(json.dumps(app.figures(PLAYS, DUTIES)))
    assert app.matrix(app.read(tmp_path)).tolist() == [[1, 1], [0, 0], [1, 0]]
    assert app.matrix(app.read(tmp_path), "drafts").tolist() == [[1, 0], [1, 0], [0, 1]]


def scores(folder, right, n=40):
    folder.mkdir()
    rows = {f"{i:03}": [float(i < right)] for i in range(n)}
    (folder / app.FILE).write_text(json.dumps({"scores": rows}))
    return folder


def team(folder, digest):
    folder.mkdir()
    (folder.parent / f"{folder.name}_adapter").mkdir()
    (folder.parent / f"{folder.name}_adapter" / "adapter_model.safetensors").write_text(digest)
    policies.write(folder, {"solver": digest, "critic": "base"}, {"solver": folder.parent / f"{folder.name}_adapter"})
    return folder


@pytest.mark.parametrize(
    ("before", "after", "rule", "promoted"),
    [
        (10, 30, "better", True),
        (10, 11, "better", False),
        (10, 11, "not_worse", True),
        (30, 10, "not_worse", False),
        (30, 10, "always", True),
    ],
)
def test_the_team_that_plays_on_is_the_one_that_the_test_allows(tmp_path, before, after, rule, promoted):
    inputs = {
        "scores": [scores(tmp_path / "before", before)],
        "candidate_scores": [scores(tmp_path / "after", after)],
        "policies": [team(tmp_path / "old", "old")],
        "candidate": [team(tmp_path / "new", "new")],
    }
    (tmp_path / "out").mkdir()
    facts = app.promote(tmp_path / "out", inputs, {"promotion": {"rule": rule, "alpha": 0.05}, "agents": ["solver"]})
    digest = "new" if promoted else "old"
    assert facts["promoted"] is promoted
    assert policies.read(tmp_path / "out") == {
        "solver": Policy("solver", digest, str(tmp_path / "out" / "solver")),
        "critic": Policy("critic"),
    }
    assert (tmp_path / "out" / "solver" / "adapter_model.safetensors").read_text() == digest
    assert sum(map(sum, app.read(tmp_path / "out")["scores"].values())) == (after if promoted else before)
