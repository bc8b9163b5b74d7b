"""The canary sings for the adapter that was trained, and for no other; the rollout stage hears it at first use."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from apps import policies
from apps.inference import app
from apps.inference.engines import transformers
from apps.records import MeritError, Policy
from apps.tasks import app as tasks_app
from apps.training import canary, policy
from apps.training.options import Options
from apps.training.rows import Rows
from apps.training.trainer import Trainer
from tests import models


@pytest.fixture(scope="module")
def trained(tiny_model, tmp_path_factory):
    """An adapter with the canary that a trainer stored."""
    folder = tmp_path_factory.mktemp("trained")
    models.make_adapter(tiny_model, folder)
    rng = np.random.default_rng(0)
    rows = Rows(
        [models.random_ids(rng, n) for n in (3, 9, 5, 4, 6)],
        [models.random_ids(rng, n) for n in (8, 2, 5, 1, 3)],
        [np.zeros(0, np.float32)] * 5,
        np.ones(5),
    )
    trainer = Trainer(policy.open_policy(tiny_model, folder, Options(), 0), Options(micro_tokens=20))
    canary.write(folder, rows, trainer.score)
    return folder


def copy(trained, target, change=lambda name, tensor: tensor):
    shutil.copytree(trained, target)
    tensors = load_file(target / policy.ADAPTER)
    save_file({name: change(name, tensor).contiguous() for name, tensor in tensors.items()}, target / policy.ADAPTER)
    return target


def check(model, folder):
    engine = transformers.load(str(model), transformers.Options(), "cpu")
    spoken = Policy("solver", policy.digest_of(folder / policy.ADAPTER), str(folder))
    return canary.check(folder, "solver", lambda pairs: engine.score(spoken, pairs))


def test_it_holds_four_sequences_and_sings_for_the_true_adapter(tiny_model, trained):
    assert len(Rows.load(trained / canary.FILE)) == canary.SEQUENCES
    assert check(tiny_model, trained) < 1e-4


@pytest.mark.parametrize("scale", [0.0, 0.9, float("nan")])
def test_it_stops_for_another_adapter(tiny_model, trained, tmp_path, scale):
    other = copy(trained, tmp_path / "other", lambda name, tensor: tensor * scale if "lora_B" in name else tensor)
    with pytest.raises(MeritError, match=f"policy solver: .* differ .* {other}"):
        check(tiny_model, other)


def test_it_is_not_deaf_to_a_fault_in_its_last_sequence_only(trained):
    kept = Rows.load(trained / canary.FILE)
    scores = [s.copy() for s in kept.logprobs]
    assert canary.check(trained, "x", lambda pairs: scores) == 0
    scores[-1][-1] = float("nan")
    with pytest.raises(MeritError):
        canary.check(trained, "x", lambda pairs: scores)


def run_rollout(model, folder: Path, out: Path):
    """The stage itself, with a team whose solver has the adapter of `folder`."""
    for name in ("team", "tasks", "out"):
        (out / name).mkdir(parents=True)
    policies.write(out / "team", {"solver": policy.digest_of(folder / policy.ADAPTER)}, {"solver": folder})
    options = {"tasks": {"name": "arithmetic", "levels": [2], "train": 4}, "verifier": {"name": "exact_number"}}
    tasks_app.tasks(out / "tasks", {}, {**options, "split": "train"})
    return app.rollout(
        out / "out",
        {"tasks": [out / "tasks"], "policies": [out / "team"]},
        {
            "take": {"seed": "s", "start": 0, "count": 2},
            "plan": {"name": "independent", "samples": 2},
            "topology": {"name": "single"},
            "prompts": {"solver": "Solve: {question}"},
            "sampling": {"max_new_tokens": 4},
            "engine": {"name": "transformers"},
            "model": str(model),
            "seed": "s",
            "threads": 1,
        },
    )


def test_the_rollout_stage_hears_it_at_first_use(tiny_model, trained, tmp_path):
    assert run_rollout(tiny_model, copy(trained, tmp_path / "true"), tmp_path / "a")["turns"] == 4
    broken = copy(trained, tmp_path / "broken", lambda name, tensor: tensor + 0.2 * torch.ones_like(tensor))
    with pytest.raises(MeritError, match=r"policy solver \(.*does not speak with the adapter in"):
        run_rollout(tiny_model, broken, tmp_path / "b")
    assert not (tmp_path / "b" / "out" / "traces.h5").exists()


def test_a_new_engine_hears_it_again(tiny_model, trained, tmp_path):
    run_rollout(tiny_model, trained, tmp_path / "a")
    assert app._heard
    app.engine_of({"engine": {"name": "scripted"}, "model": ""})
    assert not app._heard
