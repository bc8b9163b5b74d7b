"""The loss of a value model: against plain Python, by hand, its gradient, and the laws of a step."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.training import policy
from apps.training.batch import Batch
from apps.training.objectives import value
from apps.training.options import Lora, Options
from apps.training.rows import Rows
from apps.training.trainer import Trainer
from tests.models import ids, random_ids

SEEDS = st.integers(0, 2**31)
FIELDS = ("mask_BT", "values_BT", "targets_BT", "old_values_BT")
NAN = float("nan")


def random_batch(seed, rows=5, length=4):
    generator = torch.Generator().manual_seed(seed)
    values, returns, old = (
        2 * torch.rand((rows, length), generator=generator, dtype=torch.float64) - 1 for _ in range(3)
    )
    mask = (torch.rand((rows, length), generator=generator) < 0.7).double()
    mask[:, 0] = 1
    returns[torch.rand((rows, length), generator=generator) < 0.2] = NAN
    return Batch(
        None,
        mask,
        float(mask.sum()),
        rows,
        values_BT=values.requires_grad_(True),
        targets_BT=returns,
        old_values_BT=old,
    )


def scalar(batch, clip):
    total, (rows, length) = 0.0, batch.mask_BT.shape
    for b in range(rows):
        for t in range(length):
            v, r, old = (float(getattr(batch, name)[b, t]) for name in FIELDS[1:])
            if batch.mask_BT[b, t] and not math.isnan(r):
                near = v if clip is None else max(old - clip, min(old + clip, v))
                total += 0.5 * max((v - r) ** 2, (near - r) ** 2)
    return total / batch.tokens


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, clip=st.sampled_from([None, 0.2, 0.5]))
def test_equals_the_scalar_formula(seed, clip):
    batch = random_batch(seed)
    assert value.loss(batch, value.Options(clip=clip))[0].item() == pytest.approx(scalar(batch, clip), abs=1e-12)


@pytest.mark.parametrize("clip", [None, 0.2])
def test_gradcheck(clip):
    batch = random_batch(1)
    loss = lambda v: value.loss(replace(batch, values_BT=v), value.Options(clip=clip))[0]  # noqa: E731
    assert torch.autograd.gradcheck(loss, batch.values_BT)


def test_neither_split_nor_order_changes_loss_or_metrics():
    batch, options = random_batch(2), value.Options()
    whole, metrics = value.loss(batch, options)
    parts = [
        value.loss(replace(batch, **{f: getattr(batch, f)[rows] for f in FIELDS}), options)
        for rows in ([4, 0], [2, 1, 3])
    ]
    assert sum(part[0].item() for part in parts) == pytest.approx(whole.item(), abs=1e-12)
    assert {key: sum(part[1][key] for part in parts) for key in metrics} == pytest.approx(metrics, abs=1e-12)


@pytest.mark.parametrize(
    ("v", "target", "old", "loss", "slope", "clipped"),
    [
        (0.5, 1.0, 0.4, 0.125, -0.5, 0),  # within the bound: ½·.25
        (0.8, 1.0, 0.0, 0.32, 0.0, 1),  # moved .8 towards the return, only .2 count: ½·.64, no more push
        (-0.5, 1.0, 0.0, 1.125, -1.5, 0),  # moved away from it: the plain error is larger, and pulls back
        (1.5, 1.0, 0.0, 0.32, 0.0, 1),
        (2.0, 1.0, 0.0, 0.5, 1.0, 0),  # far beyond the return: ½·1 > ½·.64
    ],
)
def test_one_token_by_hand(v, target, old, loss, slope, clipped):
    given = {"values_BT": torch.tensor([[v]], requires_grad=True), "targets_BT": torch.tensor([[target]])}
    batch = Batch(None, torch.ones(1, 1), 1.0, 1.0, **given, old_values_BT=torch.tensor([[old]]))
    found, metrics = value.loss(batch, value.Options())
    assert found.item() == pytest.approx(loss) and metrics["clip_fraction"] == clipped
    assert torch.autograd.grad(found, batch.values_BT)[0].item() == pytest.approx(slope, abs=1e-6)
    assert metrics["error"] == pytest.approx((v - target) ** 2) and metrics["return_mean"] == pytest.approx(target)


def test_what_is_masked_or_without_a_return_has_no_say():
    batch = random_batch(3)
    silent = (batch.mask_BT == 0) | batch.targets_BT.isnan()
    found = value.loss(batch, value.Options())[0]
    assert not torch.autograd.grad(found, batch.values_BT)[0][silent].any()
    other = replace(
        batch,
        values_BT=torch.where(silent, 99.0, batch.values_BT),
        old_values_BT=torch.where(silent, NAN, batch.old_values_BT),
    )
    assert value.loss(other, value.Options())[0].item() == pytest.approx(found.item(), abs=1e-12)


def test_what_it_needs():
    assert value.needs(value.Options()) == value.NEEDS
    assert value.needs(value.Options(clip=None)) == {"values", "targets"}


def test_a_real_model_learns_what_each_completion_is_worth(tiny_model):
    """Two completions of one prompt: the first token is worth their mean, what follows tells them apart."""
    options = Options(lora=Lora(r=4, alpha=8), lr=1e-2, epochs=60)
    trainer = Trainer(policy.open_policy(tiny_model, None, options, 5), options)
    policy.add_scalar_head(trainer.model, tiny_model)
    trainer = Trainer(trainer.model, options)
    rng = np.random.default_rng(0)
    said, none = [random_ids(rng, 3), random_ids(rng, 4)], [np.zeros(0, np.float32)] * 2
    targets = [np.full(3, 1.0, np.float32), np.full(4, -1.0, np.float32)]
    rows = Rows([ids(5, 6, 7)] * 2, said, none, np.ones(2), columns={"targets": targets})
    tuned = value.Options(clip=None)
    history = list(trainer.fit(rows, lambda batch: value.loss(batch, tuned), value.needs(tuned), 0))
    assert history[0]["error"] == pytest.approx(1.0)  # a head of zeros
    counts = {"tokens": 7.0, "sequences": 2.0}
    read = trainer.batch(rows, np.arange(2), frozenset({"values", "targets"}), counts).values_BT.detach()
    assert read[0, 0].item() == pytest.approx(read[1, 0].item(), abs=1e-4)
    assert (read[0, 1:3] > 0.6).all() and (read[1, 1:4] < -0.6).all() and abs(read[0, 0].item()) < 0.4
