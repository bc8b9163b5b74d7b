"""Value models, anchors and cut distributions on several real ranks: what one process makes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from apps.training import app, policy
from tests.training.test_ranks import LAUNCHER, ZERO, made_rows, tensors

VALUE, CORRECTED = {"name": "value"}, {"name": "dapo", "truncation": 1.5, "sequence_mask": 50.0, "entropy": 0.01}


@pytest.fixture(scope="module")
def batch(tmp_path_factory):
    """Rows with returns and predictions, and of each token five ids that it was drawn from."""
    folder, rng = tmp_path_factory.mktemp("batch"), np.random.default_rng(0)
    rows = made_rows([1, 9, 4, 11, 6, 2, 8])
    targets, values = ([rng.normal(size=len(row)).astype(np.float32) for row in rows.completions] for _ in range(2))
    kept = [
        np.concatenate([row[:, None], rng.integers(60, 65, (len(row), 4))], 1).astype(np.int32)
        for row in rows.completions
    ]
    type(rows)(rows.prompts, rows.completions, rows.logprobs, rows.advantages, columns={"targets": targets, "values": values},
               kept=kept).save(folder / "solver.npz")  # fmt: skip
    return folder


def train(model, out, batch, objective, **training):
    out.mkdir()
    settings = {"step_rows": 3, "micro_tokens": 30, "lora": {"r": 4, "alpha": 8}, "epochs": 2, **training}
    options = {"model": str(model), "agent": "solver", "training": settings, "objective": objective, "seed": 3}
    return app.train(out, {"batch": [batch]}, {**options, "launcher": LAUNCHER, "threads": 1})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objective", "parallel"),
    [
        (VALUE, "ddp"),
        (CORRECTED, "ddp"),
        pytest.param(VALUE, "zero2", marks=ZERO),
        pytest.param(VALUE, "zero3", marks=ZERO),
        pytest.param(CORRECTED, "zero3", marks=ZERO),
    ],
)
def test_two_ranks_make_what_one_process_makes(tiny_model, batch, tmp_path, objective, parallel):
    wanted = train(tiny_model, tmp_path / "alone", batch, objective)
    facts = train(tiny_model, tmp_path / "ranks", batch, objective, parallel=parallel, ranks=2)
    files = [policy.ADAPTER, *([policy.SCALAR_HEAD] if objective is VALUE else [])]
    for file in files:
        one, other = tensors(tmp_path / "alone" / file), tensors(tmp_path / "ranks" / file)
        assert set(one) == set(other) and all(torch.allclose(one[n], other[n], rtol=0, atol=1e-5) for n in one), file
        assert max(float(t.abs().max()) for t in one.values()) > 1e-3
    assert facts["last"] == pytest.approx(wanted["last"], abs=1e-4)
