"""Objectives: each against a scalar implementation in plain Python, its gradient, and the laws of a step."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from apps import leaf
from apps.training.batch import Batch
from apps.training.objectives import dpo, grpo, sft

OTHERWISE = {"teacher"}  # what those read that need a second model: tests of their own
OBJECTIVES = [
    name for name in leaf.names("training/objectives") if not OTHERWISE & leaf.find("training/objectives", name).NEEDS
]
HELD_FIXED = {"cispo"}  # a factor of its loss carries no gradient by definition, see test_policy_gradient_objectives.py
SEEDS = st.integers(0, 2**31)
CARRIED = ("logprobs_BT", "scores_BT", "values_BT", "entropy_BT")  # what may carry a gradient
GIVEN = ("old_BT", "reference_BT", "advantages_BT", "targets_BT", "old_values_BT")
TENSORS = (*CARRIED, *GIVEN, "mask_BT", "state_B")
NEEDED = {"scores", "values", "entropy", *(name.removesuffix("_BT") for name in GIVEN)}  # besides log-probabilities


def random_batch(seed, rows=6, length=5, empty_row=False):
    """Random log-probabilities in float64; each row's own tokens have a gap, as after a tool's turn."""
    generator = torch.Generator().manual_seed(seed)
    tensors = [-2 * torch.rand((rows, length), generator=generator, dtype=torch.float64) for _ in range(3)]
    mask = (torch.rand((rows, length), generator=generator) < 0.7).double()
    mask[:, 0] = 1
    if empty_row:
        mask[0] = 0
    advantages = torch.randn((rows, 1), generator=generator, dtype=torch.float64).expand(rows, length).clone()
    counts = (float(mask.sum()), rows, rows / 2)
    ranked = {"states": rows / 2, "state_B": torch.arange(rows) // 2, "mismatch": 0.3}
    scalar = {
        name: torch.randn((rows, length), generator=generator, dtype=torch.float64)
        for name in ("scores_BT", "values_BT", "old_values_BT")
    }
    given = {
        name: torch.rand((rows, length), generator=generator, dtype=torch.float64)
        for name in ("entropy_BT", "targets_BT")
    }
    batch = Batch(tensors[0], mask, *counts, tensors[1], tensors[2], advantages, **ranked, **scalar, **given)
    for name in CARRIED:
        getattr(batch, name).requires_grad_(True)
    return batch


def rows_of(batch, chosen):
    """The micro-batch of some rows; the denominators stay those of the step."""
    return replace(batch, **{name: getattr(batch, name)[chosen] for name in TENSORS})


def own_tokens(batch, row):
    return [t for t in range(batch.mask_BT.shape[1]) if batch.mask_BT[row, t]]


def scalar_sft(batch, options):
    pairs = [(b, t) for b in range(len(batch.mask_BT)) for t in own_tokens(batch, b)]
    return -sum(batch.logprobs_BT[b, t].item() for b, t in pairs) / len(pairs)


def scalar_dpo(batch, options):
    total = 0.0
    for pair in range(len(batch.mask_BT) // 2):
        ratio = [
            sum(batch.logprobs_BT[b, t].item() - float(batch.reference_BT[b, t]) for t in own_tokens(batch, b))
            for b in (2 * pair, 2 * pair + 1)
        ]
        total += math.log(1 + math.exp(-options.beta * (ratio[0] - ratio[1])))
    return total / (len(batch.mask_BT) / 2)


def scalar_grpo(batch, options):
    total = 0.0
    for b in range(len(batch.mask_BT)):
        gains = []
        for t in own_tokens(batch, b):
            logp, old, ref, advantage = (
                getattr(batch, name)[b, t].item() for name in ("logprobs_BT", "old_BT", "reference_BT", "advantages_BT")
            )
            ratio = math.exp(logp - old)
            clipped = max(1 - options.clip_low, min(1 + options.clip_high, ratio))
            kl = math.exp(ref - logp) - (ref - logp) - 1
            gains.append(min(ratio * advantage, clipped * advantage) - options.beta * kl)
        total += sum(gains) / len(gains) if gains else 0.0
    return -total / len(batch.mask_BT)


SCALAR = {"sft": scalar_sft, "dpo": scalar_dpo, "grpo": scalar_grpo}


def run(name, batch, **options):
    module = leaf.find("training/objectives", name)
    return module.loss(batch, module.Options(**options))


def gradient(batch, value):
    """Of everything that may carry one: (B, T, 4), 0 where the objective does not read it."""
    carried = [tensor for name in CARRIED if (tensor := getattr(batch, name)) is not None]
    found = torch.autograd.grad(value, carried, retain_graph=True, allow_unused=True)
    return torch.stack([torch.zeros_like(x) if g is None else g for x, g in zip(carried, found, strict=True)], dim=-1)


@pytest.mark.parametrize("name", SCALAR)
@settings(max_examples=40, deadline=None)
@given(seed=SEEDS)
def test_equals_the_scalar_formula(name, seed):
    batch = random_batch(seed, empty_row=name == "grpo")
    module = leaf.find("training/objectives", name)
    value, _ = module.loss(batch, module.Options())
    assert value.item() == pytest.approx(SCALAR[name](batch, module.Options()), abs=1e-12)


def test_grpo_with_different_bounds_equals_the_scalar_formula():
    options = grpo.Options(clip_low=0.1, clip_high=0.5, beta=0.3)
    for seed in range(20):
        batch = random_batch(seed)
        assert grpo.loss(batch, options)[0].item() == pytest.approx(scalar_grpo(batch, options), abs=1e-12)


@pytest.mark.parametrize("name", sorted(set(OBJECTIVES) - HELD_FIXED))
@pytest.mark.parametrize("seed", range(3))
def test_gradcheck(name, seed):
    batch = random_batch(seed, rows=4, length=3)
    needs = leaf.find("training/objectives", name).NEEDS
    head = needs & {"scores", "values"}  # such an objective reads no log-probabilities
    read = [n for n in CARRIED if n.removesuffix("_BT") in needs | (set() if head else {"logprobs"})]
    tensors = tuple(getattr(batch, n) for n in read)
    assert torch.autograd.gradcheck(lambda *x: run(name, replace(batch, **dict(zip(read, x, strict=True))))[0], tensors)


@pytest.mark.parametrize("name", OBJECTIVES)
@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, cut=st.integers(1, 2))
def test_splitting_a_step_changes_neither_loss_nor_gradient_nor_metrics(name, seed, cut):
    """Micro-batches of 2·cut and the other rows: pairs stay whole, lengths differ."""
    batch = random_batch(seed)
    whole, metrics = run(name, batch)
    parts = [run(name, rows_of(batch, slice(0, 2 * cut))), run(name, rows_of(batch, slice(2 * cut, None)))]
    assert sum(part[0].item() for part in parts) == pytest.approx(whole.item(), abs=1e-12)
    split = sum(gradient(batch, part[0]) for part in parts)
    assert torch.allclose(split, gradient(batch, whole), atol=1e-12, rtol=0)
    assert {key: sum(part[1][key] for part in parts) for key in metrics} == pytest.approx(metrics, abs=1e-12)


@pytest.mark.parametrize("name", OBJECTIVES)
@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, data=st.data())
def test_the_order_of_rows_does_not_matter(name, seed, data):
    """Rows move in pairs, since a pairwise objective reads them so."""
    batch = random_batch(seed)
    pairs = data.draw(st.permutations(range(3)))
    order = [row for pair in pairs for row in (2 * pair, 2 * pair + 1)]
    value, metrics = run(name, batch)
    moved, moved_metrics = run(name, rows_of(batch, order))
    assert moved.item() == pytest.approx(value.item(), abs=1e-12)
    assert moved_metrics == pytest.approx(metrics, abs=1e-12)
    assert torch.allclose(gradient(batch, moved), gradient(batch, value), atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("rubbish", [float("nan"), float("-inf"), 1e30])
def test_what_lies_under_the_mask_changes_nothing(name, rubbish):
    batch = random_batch(7)
    value, metrics = run(name, batch)
    hidden = {
        field: getattr(batch, field).detach().masked_fill(batch.mask_BT == 0, rubbish)
        for field in TENSORS
        if field not in ("mask_BT", "state_B")
    }
    dirty = replace(batch, **hidden)
    for field in CARRIED:
        getattr(dirty, field).requires_grad_(True)
    dirty_value, dirty_metrics = run(name, dirty)
    assert dirty_value.item() == value.item() and dirty_metrics == metrics
    assert torch.equal(gradient(dirty, dirty_value), gradient(batch, value))
    assert not gradient(dirty, dirty_value)[batch.mask_BT == 0].any()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_needs_names_what_is_read(name):
    """An objective works with what it says it needs and nothing more."""
    module = leaf.find("training/objectives", name)
    assert module.NEEDS.issubset({*NEEDED, "pairs", "states", "mismatch", "teacher"})
    absent = {f"{need}_BT": None for need in NEEDED - module.NEEDS}
    if "pairs" not in module.NEEDS:
        absent["pairs"] = 0.0
    if "states" not in module.NEEDS:
        absent |= {"states": 0.0, "state_B": None}
    if "mismatch" not in module.NEEDS:
        absent["mismatch"] = math.nan
    batch = random_batch(3)
    assert module.loss(replace(batch, **absent), module.Options())[0].item() == run(name, batch)[0].item()


def test_sft_by_hand():
    """Own tokens −1, −2 and −3 of four: 6/3."""
    batch = Batch(torch.tensor([[-1.0, -2.0], [-3.0, -9.0]]), torch.tensor([[1, 1], [1, 0]]), 3.0, 2.0)
    value, metrics = sft.loss(batch, sft.Options())
    assert value.item() == 2.0 and metrics == {"nll": 2.0}


def test_dpo_by_hand():
    """Δ = (−1 + 3) − (−4 + 2) = 4 and β = .5: −log σ(2) = .126928."""
    mask = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    logprobs, reference = torch.tensor([[-0.5, -0.5], [-4.0, -9.0]]), torch.tensor([[-1.0, -2.0], [-2.0, -1.0]])
    batch = Batch(logprobs, mask, 3.0, 2.0, 1.0, reference_BT=reference)
    value, metrics = dpo.loss(batch, dpo.Options(beta=0.5))
    assert value.item() == pytest.approx(0.126928, abs=1e-6)
    assert metrics == pytest.approx({"margin": 2.0, "pair_accuracy": 1.0})


def test_dpo_at_the_reference_is_log_two_and_swapping_a_pair_turns_its_gradient():
    batch = random_batch(1, rows=2)
    level = replace(batch, reference_BT=batch.logprobs_BT.detach())
    value, metrics = dpo.loss(level, dpo.Options())
    assert value.item() == pytest.approx(math.log(2)) and metrics["pair_accuracy"] == 0
    swapped, _ = dpo.loss(rows_of(level, [1, 0]), dpo.Options())
    assert torch.allclose(gradient(batch, swapped), -gradient(batch, value))
    assert (gradient(batch, value)[0] <= 0).all()  # descending raises the preferred


def test_dpo_refuses_half_a_pair():
    with pytest.raises(ValueError, match="3 rows splits one"):
        run("dpo", rows_of(random_batch(0), slice(0, 3)))


def one_token(ratio, advantage, reference=None):
    """A batch of one token with the given ρ and A; π_ref = π_old unless given."""
    old = torch.tensor([[-1.0]], dtype=torch.float64)
    logprobs = (old + math.log(ratio)).requires_grad_(True)
    reference = logprobs.detach() if reference is None else torch.tensor([[reference]], dtype=torch.float64)
    advantages = torch.tensor([[advantage]], dtype=torch.float64)
    return Batch(logprobs, torch.ones(1, 1), 1.0, 1.0, 0.0, old, reference, advantages)


@pytest.mark.parametrize(
    ("ratio", "advantage", "value", "slope", "bites"),
    [
        (1.0, 2.0, -2.0, -2.0, 0),
        (1.5, 2.0, -2.4, 0.0, 1),  # gained enough: the clip takes the gradient away
        (1.5, -2.0, 3.0, 3.0, 0),  # a bad token made likelier is still pushed down
        (0.5, 2.0, -1.0, -1.0, 0),  # a good token made rarer is still pushed up
        (0.5, -2.0, 1.6, 0.0, 1),
    ],
)
def test_grpo_clips_by_hand(ratio, advantage, value, slope, bites):
    batch = one_token(ratio, advantage)
    loss, metrics = grpo.loss(batch, grpo.Options())
    assert loss.item() == pytest.approx(value)
    assert gradient(batch, loss).item() == pytest.approx(slope)
    assert metrics == pytest.approx({"clip_fraction": bites, "ratio_mean": ratio, "kl": 0.0})


def test_grpo_kl_by_hand():
    """d = log 2: k3 = 2 − .693147 − 1 = .306853, and its slope in log π_θ is 1 − e^d = −1."""
    batch = one_token(1.0, 0.0, reference=-1.0 + math.log(2))
    loss, metrics = grpo.loss(batch, grpo.Options(beta=0.5))
    assert loss.item() == pytest.approx(0.153426, abs=1e-6)
    assert gradient(batch, loss).item() == pytest.approx(-0.5)
    assert metrics["kl"] == pytest.approx(0.306853, abs=1e-6)


def test_grpo_is_a_mean_of_token_means():
    """Two sequences of 1 and 3 tokens, A = 1 and −1, ρ = 1: −(1 − 1)/2 = 0; a mean over tokens would be .5."""
    zeros = torch.zeros(2, 3)
    mask = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    advantages = torch.tensor([[1.0] * 3, [-1.0] * 3])
    value, _ = grpo.loss(Batch(zeros, mask, 4.0, 2.0, 0.0, zeros, zeros, advantages), grpo.Options())
    assert value.item() == 0.0


@settings(max_examples=25, deadline=None)
@given(SEEDS)
def test_grpo_without_advantage_or_kl_has_no_gradient_at_all(seed):
    batch = random_batch(seed)
    still = replace(batch, advantages_BT=torch.zeros_like(batch.advantages_BT))
    value, _ = grpo.loss(still, grpo.Options(beta=0.0))
    assert not gradient(batch, value).any()


def test_grpo_needs_no_reference_without_kl():
    batch = random_batch(5)
    value, metrics = grpo.loss(replace(batch, reference_BT=None), grpo.Options(beta=0.0))
    assert value.item() == grpo.loss(batch, grpo.Options(beta=0.0))[0].item()
    assert "kl" not in metrics
