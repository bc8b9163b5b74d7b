"""Whole runs of the real command: two rounds for each schedule but the default and for each way of having policies, then exported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import models
from tests.command import run

SMALL = (  # a whole run of the embedded model in some ten seconds
    "rounds=2",
    "tasks={name: arithmetic, levels: [4], train: 40, validation: 20, test: 20}",
    "rollout={tasks: 2, shards: 2, plan: independent, samples: 4}",
    "evaluation={tasks: 3, samples: 1, validation_tasks: 3, validation_samples: 1, shown_tasks: 1, shards: 1}",
    "credit.name=uniform",
    "promotion.rule=always",
    "training.epochs=1",
    "--site-option",
    "cores=1",
)
ROLES = ["solver", "critic", "reviser", "verifier"]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """One store for all of these runs: what they have in common is played once."""
    return tmp_path_factory.mktemp("runs")


def finished(place: Path, name: str, *words: str) -> dict:
    done = run(place, *SMALL, f"name={name}", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((place / "runs" / name / "summary.json").read_text())


@pytest.mark.parametrize(
    ("schedule", "trained", "teams"),
    [
        ("alternating", [["solver"], ["critic"]], [1, 1]),
        ("best_response", [["solver"], ["solver"]], [1, 1]),
        ("pool", [ROLES, ROLES], [1, 2]),
    ],
)
def test_each_schedule_trains_whom_it_says(place, schedule, trained, teams):
    summary = finished(place, schedule, f"schedule.name={schedule}")
    assert [row["agents"] for row in summary["training"]] == trained
    assert [row["teams"] for row in summary["training"]] == teams
    assert [row["agents"] for row in summary["promotions"]] == trained
    adapters = {folder.name for folder in (place / "runs" / schedule / "adapters").iterdir()}
    assert adapters == {agent for agents in trained for agent in agents}
    page = (place / "runs" / schedule / "report.html").read_text()
    assert 'id="trained"' in page


def test_two_agents_share_a_dora_adapter_and_a_third_has_a_model_of_its_own(place, tmp_path_factory):
    other = models.make_model(tmp_path_factory.mktemp("other"), seed=4)
    words = ("team.share={critic: reviser}", f"team.models.verifier={other}", "training.lora.dora=true")
    summary = finished(place, "shared", *words)
    assert [row["agents"] for row in summary["training"]] == [["solver", "reviser", "verifier"]] * 2
    adapters = place / "runs" / "shared" / "adapters"
    weights = {role: (adapters / role / "adapter_model.safetensors").read_bytes() for role in ROLES}
    assert weights["critic"] == weights["reviser"] != weights["solver"]
    exported = run(place, "export", "shared", "--agent", "verifier", "--merge", "--out", "verifier")
    assert exported.returncode == 0, exported.stderr
    assert (place / "verifier" / "model.safetensors").is_file()
    assert json.loads((place / "verifier" / "config.json").read_text())["hidden_size"] == 32


def test_all_weights_of_each_agent(place):
    finished(place, "whole", "training.lora=null", "training.lr=1e-4")
    folder = place / "runs" / "whole"
    assert not any((folder / "adapters").iterdir())
    assert {f.name for f in (folder / "models").iterdir() if (f / "model.safetensors").is_file()} == set(ROLES)
    exported = run(place, "export", "whole", "--out", "exported")
    assert exported.returncode == 0, exported.stderr
    assert sorted(f.name for f in (place / "exported").iterdir()) == sorted(ROLES)


def test_four_bits_without_kernels_are_told_before_anything_runs(place):
    told = run(place, *SMALL, "name=bits", "training.lora.quantise=nf4", "engine.quantise=nf4")
    assert told.returncode == 2 and "quantise=nf4" in told.stderr and not (place / "runs" / "bits").exists()
