"""Continued pretraining's loss, against plain Python; and held-out likelihood, by hand."""

from __future__ import annotations

import math
import random
from functools import partial

import numpy as np
import pytest
import torch

from apps.training import likelihood, policy
from apps.training.batch import Batch
from apps.training.objectives import next_token, sft
from apps.training.options import Options
from apps.training.rows import Rows
from apps.training.trainer import Trainer
from tests.models import make_model, random_ids


def softmax(logits):
    weights = [math.exp(x) for x in logits]
    return [w / sum(weights) for w in weights]


def kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def reference(mine, theirs, chosen, mask, tokens, weight, kind):
    """The loss from logits (T, V) of policy and base as lists, of one row."""
    total = 0.0
    for student, base, token, own in zip(mine, theirs, chosen, mask, strict=True):
        if own:
            p, q = softmax(student), softmax(base)
            middle = [(x + y) / 2 for x, y in zip(p, q, strict=True)]
            apart = {"reverse": kl(p, q), "forward": kl(q, p), "jensen_shannon": (kl(p, middle) + kl(q, middle)) / 2}
            total += -math.log(p[token]) + weight * apart[kind]
    return total / tokens


@pytest.mark.parametrize("kind", ["reverse", "forward", "jensen_shannon"])
def test_the_loss_against_plain_python_and_its_gradient(kind):
    rng = random.Random(kind)
    mine, theirs = ([[rng.gauss(0, 1) for _ in range(4)] for _ in range(5)] for _ in range(2))
    chosen, mask = [rng.randrange(4) for _ in range(5)], [1, 1, 0, 1, 0]
    base, taken = torch.log_softmax(torch.tensor(theirs, dtype=torch.float64), -1), torch.tensor(chosen)

    def divergence(q, kind):  # the trainer's own is in float32, too coarse for a gradient by differences
        p = torch.log_softmax(q, -1)
        middle = (p.exp() / 2 + base.exp() / 2).log()
        both = {"reverse": (p, base), "forward": (base, p)}
        if kind in both:
            a, b = both[kind]
            return (a.exp() * (a - b)).sum(-1)
        return sum((x.exp() * (x - middle)).sum(-1) / 2 for x in (p, base))

    def loss(student):
        logprobs = torch.log_softmax(student, -1).gather(1, taken[:, None]).T
        apart = lambda kind, temperature: divergence(student, kind)[None]  # noqa: E731
        batch = Batch(logprobs, torch.tensor([mask], dtype=torch.float64), 7.0, 1.0, divergence=apart)
        return next_token.loss(batch, next_token.Options(kl=0.3, kind=kind))

    student = torch.tensor(mine, dtype=torch.float64, requires_grad=True)
    value, metrics = loss(student)
    assert float(value) == pytest.approx(reference(mine, theirs, chosen, mask, 7.0, 0.3, kind), rel=1e-6)
    assert float(value) == pytest.approx(metrics["nll"] + 0.3 * metrics["kl"]) and metrics["kl"] > 0
    assert torch.autograd.gradcheck(lambda s: loss(s)[0], student)


def test_without_a_kl_it_is_sft_and_asks_for_no_base():
    batch = Batch(-torch.rand(2, 3), torch.tensor([[1.0, 1, 0], [1, 1, 1]]), 5.0, 2.0)
    assert torch.equal(next_token.loss(batch, next_token.Options())[0], sft.loss(batch, sft.Options())[0])
    assert next_token.needs(next_token.Options()) == frozenset()
    assert next_token.needs(next_token.Options(kl=0.1)) == {"teacher"}


def rows(*shapes, mask=None, seed=0):
    rng = np.random.default_rng(seed)
    prompts, completions = [random_ids(rng, p) for p, _ in shapes], [random_ids(rng, c) for _, c in shapes]
    columns = {"mask": [np.asarray(m, np.float32) for m in mask]} if mask else {}
    return Rows(prompts, completions, [np.zeros(0, np.float32)] * len(shapes), np.ones(len(shapes)), columns=columns)


def test_a_strong_kl_holds_all_weights_near_the_base_and_packing_changes_nothing(tiny_model):
    found = {}
    for weight, tokens in ((0.0, 4096), (50.0, 4096), (50.0, 1)):
        options = Options(lora=None, lr=3e-3, step_rows=8, epochs=6, micro_tokens=tokens)
        base = policy.open_base(tiny_model, options).requires_grad_(False)
        trainer = Trainer(policy.open_policy(tiny_model, None, options, 0), options, teacher=base)
        chosen = next_token.Options(kl=weight)
        loss = partial(next_token.loss, options=chosen)
        found[weight, tokens] = list(trainer.fit(rows(*[(0, 12)] * 8), loss, next_token.needs(chosen), 0))
    free, held, alone = found.values()
    assert free[-1]["nll"] < held[-1]["nll"] < held[0]["nll"] + 0.1 and held[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert [m["loss"] for m in alone] == pytest.approx([m["loss"] for m in held], rel=1e-3)


def test_likelihood_by_hand():
    given = rows((2, 3), (0, 3), mask=[[1, 0, 1], [1, 1, 1]])
    logprobs = [np.array([-1.0, -50.0, -2.0], np.float32), np.array([-70.0, -0.5, -1.5], np.float32)]
    found = likelihood.figures(given, logprobs)
    assert found["rows"] == [[3.0, 2], [2.0, 2]] and found["tokens"] == 4 and found["loss"] == pytest.approx(1.25)


def test_likelihood_is_what_the_trainer_starts_with(tiny_model, tmp_path):
    given = rows((3, 5), (0, 9), (2, 4), mask=[[1, 1, 0, 0, 1], [1] * 9, [1] * 4])
    (tmp_path / "held_out").mkdir()
    given.save(tmp_path / "held_out" / "some.npz")
    options = {"training": {"lora": {"r": 2}}}
    likelihood.likelihood(tmp_path, {"batch": [tmp_path], "start": [tiny_model]}, options)
    chosen = Options(lora=None, step_rows=8)
    trainer = Trainer(policy.open_policy(tiny_model, None, chosen, 0), chosen)
    (metrics,) = trainer.fit(given, lambda b: sft.loss(b, sft.Options()), sft.NEEDS, 0)
    found = likelihood.read(tmp_path)["some"]
    assert found["loss"] == pytest.approx(metrics["nll"], rel=1e-5) and found["tokens"] == metrics["tokens"] == 15


def test_likelihood_reads_what_was_trained(tiny_model, tmp_path):
    other = make_model(tmp_path / "other", seed=3)
    assert likelihood.opened({"train": [other], "start": [tiny_model]}, {}) == (other, None)
    assert likelihood.opened({"train": [tmp_path]}, {"model": str(tiny_model)}) == (tiny_model, tmp_path)
