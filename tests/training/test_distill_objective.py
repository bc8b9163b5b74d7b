"""Distillation's loss against plain Python on small vocabularies, by hand, its gradient, and the laws of a step."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.training import head
from apps.training.batch import Batch
from apps.training.objectives import distill

KINDS = ("forward", "reverse", "jensen_shannon")
WORDS = 5


def logits(seed, rows=4, length=3):
    """Student, teacher (B, T, V), tokens (B, T) and a mask with a gap."""
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn((rows, length, WORDS), generator=generator, dtype=torch.float64) for _ in range(2))
    tokens = torch.randint(0, WORDS, (rows, length), generator=generator)
    mask = (torch.rand((rows, length), generator=generator) < 0.7).double()
    mask[:, 0] = 1
    return student.requires_grad_(True), teacher, tokens, mask


def batch_of(student, teacher, tokens, mask, count=None):
    def divergence(kind, temperature):
        flat = head.divergence(kind, student.flatten(0, 1).double(), teacher.flatten(0, 1).double(), temperature)
        return flat.reshape(mask.shape)

    logprobs = student.log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
    return Batch(logprobs, mask, count or float(mask.sum()), float(len(mask)), divergence=divergence)


def softmax(row, temperature):
    exponents = [math.exp(float(x) / temperature) for x in row]
    return [e / sum(exponents) for e in exponents]


def kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def apart(kind, student, teacher, temperature):
    p, q = softmax(teacher, temperature), softmax(student, temperature)
    if kind == "forward":
        return kl(p, q)
    if kind == "reverse":
        return kl(q, p)
    middle = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    return (kl(p, middle) + kl(q, middle)) / 2


def scalar(student, teacher, tokens, mask, options):
    total, count = 0.0, 0
    for b in range(len(mask)):
        for t in range(len(mask[b])):
            if mask[b, t]:
                count += 1
                pair = student[b, t].tolist(), teacher[b, t].tolist()
                total += options.temperature**2 * apart(options.divergence, *pair, options.temperature)
                total -= options.nll * math.log(softmax(pair[0], 1.0)[int(tokens[b, t])])
    return total / count


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), temperature=st.sampled_from([0.5, 1.0, 3.0]), nll=st.sampled_from([0.0, 0.4]))
def test_equals_the_scalar_formula(kind, seed, temperature, nll):
    given_ = logits(seed)
    options = distill.Options(divergence=kind, temperature=temperature, nll=nll)
    value, metrics = distill.loss(batch_of(*given_), options)
    # the divergence is worked out in float32, as for a whole vocabulary
    assert value.item() == pytest.approx(scalar(*given_, options), abs=1e-5)
    assert metrics["divergence"] >= 0


def test_by_hand():
    """Teacher ½, ½ and student ¼, ¾ of two words: ½ log 2 + ½ log ⅔ = .143841 forward, ¼ log ½ + ¾ log 3/2 = .130812 reverse."""
    student, teacher = torch.tensor([[[0.25, 0.75]]]).log(), torch.tensor([[[0.5, 0.5]]]).log()
    batch = batch_of(student, teacher, torch.tensor([[1]]), torch.ones(1, 1))
    forward, reverse = (distill.loss(batch, distill.Options(divergence=kind))[0].item() for kind in KINDS[:2])
    assert (forward, reverse) == pytest.approx((0.143841, 0.130812), abs=1e-6)
    with_words = distill.loss(batch, distill.Options(nll=0.5))[0].item()
    assert with_words == pytest.approx(0.143841 - 0.5 * math.log(0.75), abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_policy_that_is_its_teacher_has_no_loss_and_no_gradient(kind):
    student, _, tokens, mask = logits(3)
    value, _ = distill.loss(batch_of(student, student.detach(), tokens, mask), distill.Options(divergence=kind))
    (gradient,) = torch.autograd.grad(value, student)
    assert abs(value.item()) < 1e-6 and gradient.abs().max() < 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_its_gradient_is_that_of_the_formula(kind):
    """By differences of the scalar formula, since the divergence is worked out in float32."""
    student, teacher, tokens, mask = logits(5, rows=1, length=2)
    options = distill.Options(divergence=kind, temperature=2.0, nll=0.3)
    value, _ = distill.loss(batch_of(student, teacher, tokens, mask), options)
    (gradient,) = torch.autograd.grad(value, student)
    for place in [(0, 0, v) for v in range(WORDS)]:
        moved = [student.detach().clone() for _ in range(2)]
        moved[0][place] += 1e-5
        moved[1][place] -= 1e-5
        high, low = (scalar(m, teacher, tokens, mask, options) for m in moved)
        assert gradient[place].item() == pytest.approx((high - low) / 2e-5, abs=1e-4)


def test_the_square_of_the_temperature_keeps_the_gradients_size():
    """For T → ∞ the gradient of T² KL goes to (z − z̄ − (v − v̄)) / V, student's less teacher's logits (1503.02531, eq. 4)."""
    student, teacher, tokens, _ = logits(9, rows=1, length=1)
    value, _ = distill.loss(batch_of(student, teacher, tokens, torch.ones(1, 1)), distill.Options(temperature=300.0))
    (gradient,) = torch.autograd.grad(value, student)
    centred = [x.detach() - x.detach().mean() for x in (student, teacher)]
    assert torch.allclose(gradient, (centred[0] - centred[1]) / WORDS, atol=5e-3)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), cut=st.integers(1, 3))
def test_splitting_a_step_and_moving_its_rows_change_nothing(seed, cut):
    student, teacher, tokens, mask = logits(seed)
    count, options = float(mask.sum()), distill.Options(nll=0.2)
    whole, metrics = distill.loss(batch_of(student, teacher, tokens, mask), options)
    parts = [
        distill.loss(batch_of(student[rows], teacher[rows], tokens[rows], mask[rows], count), options)
        for rows in (slice(cut, None), slice(0, cut))
    ]
    assert sum(value.item() for value, _ in parts) == pytest.approx(whole.item(), abs=1e-6)
    assert {key: sum(part[key] for _, part in parts) for key in metrics} == pytest.approx(metrics, abs=1e-6)


def test_what_lies_under_the_mask_changes_nothing():
    student, teacher, tokens, mask = logits(2)
    value, _ = distill.loss(batch_of(student, teacher, tokens, mask), distill.Options())
    dirty = teacher.masked_fill(mask[..., None] == 0, float("nan"))
    assert distill.loss(batch_of(student, dirty, tokens, mask), distill.Options())[0].item() == value.item()
    unread = replace(batch_of(student, teacher, tokens, mask), old_BT=None, reference_BT=None, advantages_BT=None)
    assert distill.loss(unread, distill.Options())[0].item() == value.item()
