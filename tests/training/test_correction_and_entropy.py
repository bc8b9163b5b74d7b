"""What engine and trainer disagree about, corrected; and the entropy bonus: in every policy-gradient objective."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from apps import leaf
from apps.training.objectives import correction, ppo, reinforce
from tests.training.test_policy_gradient_objectives import NAMES, PUBLISHED, gradient, random_batch, run, tokens_of
from tests.training.test_policy_gradient_objectives import scalar_surrogate as surrogate

SEEDS = st.integers(0, 2**31)
FIELDS = ("logprobs_BT", "mask_BT", "old_BT", "reference_BT", "advantages_BT", "anchor_BT", "entropy_BT")
CORRECTIONS = [
    {"truncation": 1.2},
    {"sequence_mask": 1.5},
    {"sequence_mask": 1.1, "sequence_ratio": "mean"},
    {"truncation": 1.1, "sequence_mask": 2.0},
]


def with_anchor(seed, rows=5, length=4, **more):
    """A batch whose engine and trainer disagree by up to .5 nats a token; with an entropy that carries a gradient."""
    batch = random_batch(seed, rows, length, **more)
    generator = torch.Generator().manual_seed(seed + 1)
    apart = torch.rand((2, rows, length), generator=generator, dtype=torch.float64)
    return replace(batch, anchor_BT=batch.old_BT + apart[0] - 0.5, entropy_BT=apart[1].requires_grad_(True))


def scalar(name, batch, options):
    """The loss of a whole step with weights and a mask, in loops over plain numbers. No KL."""
    rows = tokens_of(batch)
    own = batch.mask_BT.tolist()
    anchors = [
        [a for a, m in zip(line, mask, strict=True) if m]
        for line, mask in zip(batch.anchor_BT.tolist(), own, strict=True)
    ]
    low, high = PUBLISHED[name][:2]
    bound, losses = options.get("truncation"), []
    for row, anchor in zip(rows, anchors, strict=True):
        apart = [a - token[1] for a, token in zip(anchor, row, strict=True)]
        middle = math.exp(sum(apart) / len(apart))
        if limit := options.get("sequence_mask"):
            geometric = options.get("sequence_ratio") == "mean"
            if not (1 / limit <= middle <= limit if geometric else math.prod(map(math.exp, apart)) <= limit):
                losses.append([0.0])
                continue
        weights = [min(math.exp(d), bound) if bound else 1.0 for d in apart]
        ratios = [math.exp(token[0] - a) for a, token in zip(anchor, row, strict=True)]
        advantages = [token[3] for token in row]
        if name == "gspo":
            s = math.prod(ratios) ** (1 / len(row))
            losses.append([(min(middle, bound) if bound else 1.0) * surrogate(s, advantages[0], low, high)])
        elif name == "reinforce":
            losses.append([w * a * token[0] for w, a, token in zip(weights, advantages, row, strict=True)])
        elif name == "cispo":
            losses.append(
                [
                    w * min(r, 5.0) * a * token[0]
                    for w, r, a, token in zip(weights, ratios, advantages, row, strict=True)
                ]
            )
        else:
            losses.append([w * surrogate(r, a, low, high) for w, r, a in zip(weights, ratios, advantages, strict=True)])
    if name == "grpo":
        return -sum(sum(part) / len(row) for part, row in zip(losses, rows, strict=True)) / len(rows)
    total = sum(map(sum, losses))
    return -total / {"gspo": len(rows), "dr_grpo": len(rows) * 64}.get(name, sum(map(len, rows)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("options", CORRECTIONS)
@settings(max_examples=10, deadline=None)
@given(seed=SEEDS)
def test_equals_the_scalar_formula(name, options, seed):
    batch = with_anchor(seed)
    assert run(name, batch, beta=0.0, **options)[0].item() == pytest.approx(scalar(name, batch, options), abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("options", CORRECTIONS)
def test_neither_split_nor_order_changes_anything(name, options):
    batch, given = with_anchor(5), {"beta": 0.2, "entropy": 0.1, **options}
    whole, metrics = run(name, batch, **given)
    parts = [
        run(name, replace(batch, **{f: getattr(batch, f)[rows] for f in FIELDS}), **given)
        for rows in ([3, 0], [4, 2, 1])
    ]
    assert sum(value.item() for value, _ in parts) == pytest.approx(whole.item(), abs=1e-12)
    assert {key: sum(part[1][key] for part in parts) for key in metrics} == pytest.approx(metrics, abs=1e-12)
    split = sum(gradient(batch, value) for value, _ in parts)
    assert torch.allclose(split, gradient(batch, whole), atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"cispo"}))
def test_gradcheck(name):
    """In log π and in the entropy; the weights have no gradient in either."""
    batch, given = (
        with_anchor(3, rows=3, length=3),
        {"truncation": 1.2, "sequence_mask": 2.0, "entropy": 0.3, "beta": 0.1},
    )
    assert torch.autograd.gradcheck(
        lambda x, h: run(name, replace(batch, logprobs_BT=x, entropy_BT=h), **given)[0],
        (batch.logprobs_BT, batch.entropy_BT),
    )


@pytest.mark.parametrize("name", NAMES)
def test_what_is_needed(name):
    module = leaf.find("training/objectives", name)
    plain = module.needs(module.Options(beta=0.0))
    assert not {"anchor", "entropy"} & plain
    assert module.needs(module.Options(beta=0.0, truncation=2.0)) == plain | {"old", "anchor"}
    assert module.needs(module.Options(beta=0.0, entropy=0.01)) == plain | {"entropy"}


@pytest.mark.parametrize("name", NAMES)
def test_where_engine_and_trainer_agree_nothing_changes(name):
    batch = with_anchor(8)
    batch = replace(batch, anchor_BT=batch.old_BT)
    plain, _ = run(name, replace(batch, anchor_BT=None), beta=0.0)
    value, metrics = run(name, batch, beta=0.0, truncation=1.0, sequence_mask=1.001, sequence_ratio="mean")
    assert value.item() == plain.item() and torch.equal(gradient(batch, value), gradient(batch, plain))
    assert (metrics["truncated"], metrics["masked"], metrics["mismatch_kl"]) == (0, 0, 0)


def two_rows(name="ppo", **options):
    """Rows of two and one tokens, ρ = 1, A = 1; trainer/engine = 2, 2 and 1/4."""
    batch = random_batch(0, rows=2, length=2)
    old, mask = torch.full((2, 2), -3.0, dtype=torch.float64), torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    anchor = old + torch.tensor([[math.log(2)] * 2, [-math.log(4), 0.0]])
    given = {"logprobs_BT": anchor.clone().requires_grad_(True), "anchor_BT": anchor, "old_BT": old, "mask_BT": mask}
    batch = replace(batch, **given, tokens=3.0, advantages_BT=torch.ones(2, 2, dtype=torch.float64))
    value, metrics = run(name, batch, **options)
    return value.item(), gradient(batch, value).tolist(), metrics


def test_token_weights_by_hand():
    """C = 1.5: weights 1.5, 1.5 and .25 (no lower bound). KL: e^d − d − 1 of log 2, log 2 and −log 4."""
    value, slope, metrics = two_rows(truncation=1.5)
    assert value == pytest.approx(-3.25 / 3) and metrics["truncated"] == pytest.approx(2 / 3)
    assert slope == [pytest.approx([-0.5, -0.5]), pytest.approx([-0.25 / 3, 0.0])]
    assert metrics["mismatch_kl"] == pytest.approx((2 * (1 - math.log(2)) + (0.25 + math.log(4) - 1)) / 3)
    assert metrics["ratio_mean"] == pytest.approx(1) and "masked" not in metrics


@pytest.mark.parametrize(
    ("options", "rows", "masked"),
    [
        ({"sequence_mask": 3.0}, [0, 1], 0.5),  # the product 4 > 3; a ratio of ¼ stays
        ({"sequence_mask": 4.5}, [1, 1], 0.0),
        ({"sequence_mask": 3.0, "sequence_ratio": "mean"}, [1, 0], 0.5),  # the mean 2 ≤ 3; ¼ < ⅓
        ({"sequence_mask": 1.5, "sequence_ratio": "mean"}, [0, 0], 1.0),
    ],
)
def test_rows_that_are_left_out_by_hand(options, rows, masked):
    """They stay in the denominator of three tokens."""
    value, slope, metrics = two_rows(**options)
    assert value == pytest.approx(-(2 * rows[0] + rows[1]) / 3) and metrics["masked"] == masked
    assert slope == [pytest.approx([-rows[0] / 3] * 2), pytest.approx([-rows[1] / 3, 0.0])]


def test_a_row_that_is_left_out_has_neither_kl_nor_bonus():
    batch = with_anchor(2)
    batch = replace(batch, anchor_BT=batch.old_BT + 5.0)
    value, metrics = run("ppo", batch, beta=0.5, entropy=0.5, sequence_mask=2.0)
    assert metrics["masked"] == 1 and value.item() == 0 and not gradient(batch, value).any()


def test_the_weights_correct_the_mean_exactly():
    """Three words: the weighted mean over what the engine draws is the trainer's mean, where C does not bite."""
    engine, trainer = (torch.tensor(p, dtype=torch.float64).log()[None] for p in ([0.5, 0.3, 0.2], [0.4, 0.4, 0.2]))
    advantages = torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64)
    weight = correction.weights(trainer - engine, correction.Correction(truncation=2.0))
    assert (engine.exp() * weight * advantages).sum().item() == pytest.approx((trainer.exp() * advantages).sum().item())


@pytest.mark.parametrize("name", NAMES)
def test_the_bonus_pays_for_unsureness_at_own_tokens_alone(name):
    """Its slope is −c times the weight of a token: of all tokens, of its row, or of the constant length."""
    batch = with_anchor(6)
    value, metrics = run(name, batch, beta=0.0, entropy=0.25)
    slope = torch.autograd.grad(value, batch.entropy_BT)[0]
    row = batch.mask_BT / (batch.sequences * batch.mask_BT.sum(dim=1, keepdim=True))
    weight = {"grpo": row, "gspo": row, "dr_grpo": batch.mask_BT / (batch.sequences * 64)}
    assert torch.allclose(slope, -0.25 * weight.get(name, batch.mask_BT / batch.tokens), atol=1e-15)
    assert metrics["entropy"] == pytest.approx(float((batch.entropy_BT.detach() * batch.mask_BT).sum()) / batch.tokens)


def test_the_bonus_by_hand():
    """REINFORCE of one token, A = 0: the loss is −c·H."""
    batch = with_anchor(1, rows=1, length=1)
    batch = replace(batch, advantages_BT=torch.zeros(1, 1), entropy_BT=torch.tensor([[1.5]]))
    assert reinforce.loss(batch, reinforce.Options(entropy=0.2))[0].item() == pytest.approx(-0.3)
    assert "entropy" not in ppo.loss(replace(batch, entropy_BT=None), ppo.Options())[1]
