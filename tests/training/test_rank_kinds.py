"""Whatever can be trained comes out of ranks as out of one process: scalar heads, columns, shared prompts, teachers, all weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from apps.platform import mpi
from apps.training import app, policy
from tests import models
from tests.training.test_ranks import LAUNCHER, ZERO, made_rows, tensors

LENGTHS = [1, 9, 4, 11, 6, 2, 8, 5]
LORA = {"lora": {"r": 4, "alpha": 8}}
KINDS = {  # name -> (objective, training)
    "everything a token": (
        {"name": "ppo", "truncation": 2.0, "entropy": 0.01, "beta": 0.05},
        {**LORA, "activation_checkpointing": True},
    ),
    "a value model": ({"name": "value"}, LORA),
    "scores": ({"name": "bradley_terry"}, LORA),
    "a teacher": ({"name": "distill"}, LORA),
    "all weights": ({"name": "sft"}, {"lora": None, "lr": 1e-4}),
    "in bfloat16": ({"name": "grpo"}, {**LORA, "dtype": "bfloat16"}),
}
ROUNDED = {"in bfloat16"}  # where a gradient is near 0, rounding decides its sign, and AdamW's step is then another one


@pytest.fixture(scope="module")
def batch(tmp_path_factory):
    """Eight rows of two prompts, with every column; in pairs."""
    rng = np.random.default_rng(0)
    rows = made_rows(LENGTHS, paired=True)
    prompts = [models.random_ids(rng, n) for n in (7, 4)]
    said = rows.completions
    columns = {
        "mask": [np.r_[1, (rng.random(len(c) - 1) < 0.7)].astype(np.float32) for c in said],
        "advantages": [rng.normal(size=len(c)).astype(np.float32) for c in said],
        "targets": [rng.normal(size=len(c)).astype(np.float32) for c in said],
        "values": [rng.normal(size=len(c)).astype(np.float32) for c in said],
    }
    folder = tmp_path_factory.mktemp("kinds")
    replace(rows, prompts=[prompts[i // 4] for i in range(8)], columns=columns).save(folder / "solver.npz")
    return folder


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return models.make_model(tmp_path_factory.mktemp("teacher"), seed=4)


def given(kind, out: Path, model, batch, teacher, **how):
    objective, training = KINDS[kind]
    settings = {"step_rows": 4, "micro_tokens": 30, "epochs": 2, **training, **how}
    options = {"model": str(model), "agent": "solver", "training": settings, "objective": objective, "seed": 3}
    inputs = {"batch": [batch], **({"teacher": [teacher]} if kind == "a teacher" else {})}
    out.mkdir(parents=True)
    return out, inputs, options


@pytest.fixture(scope="module")
def alone(tiny_model, batch, teacher, tmp_path_factory):
    folder, facts = tmp_path_factory.mktemp("alone"), {}
    for kind in KINDS:
        facts[kind] = app.train(*given(kind, folder / kind, tiny_model, batch, teacher))
    return folder, facts


def weights_of(folder: Path):
    found = {}
    for file in (policy.ADAPTER, policy.MODEL, policy.SCALAR_HEAD):
        if (folder / file).is_file():
            found |= tensors(folder / file)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parallel", "ranks", "offload"),
    [
        ("ddp", 4, False),
        pytest.param("zero1", 1, True, marks=ZERO),
        pytest.param("zero1", 4, False, marks=ZERO),
        pytest.param("zero2", 2, True, marks=ZERO),
        pytest.param("zero3", 4, True, marks=ZERO),
    ],
)
def test_ranks_train_all_kinds_as_one_process_does(
    tiny_model, batch, teacher, alone, tmp_path, parallel, ranks, offload
):
    how = {"parallel": parallel, "ranks": ranks, "offload": offload}
    tasks = []
    for kind in KINDS:
        out, inputs, options = given(kind, tmp_path / kind, tiny_model, batch, teacher, **how)
        tasks.append({"out": str(out), "inputs": {k: list(map(str, v)) for k, v in inputs.items()}, "options": options})
    (tmp_path / "spec.json").write_text(json.dumps(tasks))
    mpi.launch(LAUNCHER, ranks, "tests.training.rank_kinds", tmp_path / "spec.json")
    folder, facts = alone
    for kind in KINDS:
        one, other = weights_of(folder / kind), weights_of(tmp_path / kind)
        assert set(one) == set(other) and one, kind
        apart = torch.cat([(one[n].float() - other[n].float()).abs().ravel() for n in one])
        assert apart.mean() < 4e-4 if kind in ROUNDED else apart.max() <= 2e-5, (kind, apart.mean(), apart.max())
        last = json.loads((tmp_path / kind / "facts.json").read_text())["last"]
        assert last == pytest.approx(facts[kind]["last"], abs=2e-2 if kind in ROUNDED else 1e-4), kind


def test_one_process_trains_them_all_and_each_of_them_moves(alone, tiny_model):
    """Else the comparison would be of weights that nobody touched."""
    folder, facts = alone
    for kind in KINDS:
        assert facts[kind]["steps"] == 4 and facts[kind]["last"]["gradient_norm"] > 1e-4, kind
    assert {"scalar_head.safetensors"} <= {f.name for f in (folder / "a value model").iterdir()}
    assert not torch.equal(tensors(folder / "a value model" / policy.SCALAR_HEAD)["weight"], torch.zeros(1, 32))


def test_activation_checkpointing_changes_neither_loss_nor_weights(alone, tiny_model, batch, teacher, tmp_path):
    kind = "everything a token"
    facts = app.train(*given(kind, tmp_path / "out", tiny_model, batch, teacher, activation_checkpointing=False))
    one, other = weights_of(alone[0] / kind), weights_of(tmp_path / "out")
    assert all(torch.allclose(one[n], other[n], atol=1e-6) for n in one)
    assert facts["last"] == pytest.approx(alone[1][kind]["last"], abs=1e-6)
