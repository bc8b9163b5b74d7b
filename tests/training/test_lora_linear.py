"""A LoRA layer as one operation: PEFT's own figures and gradients, and what it leaves to PEFT."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.autograd import gradcheck

from apps.training import policy
from apps.training.lora_linear import operation, quicken
from apps.training.options import Lora, Options
from apps.training.trainer import Trainer
from tests import models

IDS = torch.arange(5, 33).reshape(4, 7)


def tensors(bias: bool, dtype=torch.float64):
    made = torch.Generator().manual_seed(0)
    x, weight, a, b = (
        torch.randn(*shape, generator=made, dtype=dtype) for shape in ((2, 3, 4), (5, 4), (2, 4), (5, 2))
    )
    given = torch.randn(5, generator=made, dtype=dtype) if bias else None
    return x.requires_grad_(), weight, given, a.requires_grad_(), b.requires_grad_()


@pytest.mark.parametrize("bias", [True, False])
def test_gradients_are_those_of_finite_differences(bias):
    x, weight, given, a, b = tensors(bias)
    assert gradcheck(lambda x, a, b: operation().apply(x, weight, given, a, b, 0.7), (x, a, b))


@pytest.mark.parametrize("bias", [True, False])
def test_the_figure_is_the_formula(bias):
    """Worked out in plain Python."""
    x, weight, given, a, b = tensors(bias)
    found = operation().apply(x, weight, given, a, b, 0.7)
    for i in range(2):
        for t in range(3):
            for o in range(5):
                wanted = sum(weight[o, k].item() * x[i, t, k].item() for k in range(4))
                wanted += 0.7 * sum(
                    b[o, r].item() * a[r, k].item() * x[i, t, k].item() for r in range(2) for k in range(4)
                )
                assert found[i, t, o].item() == pytest.approx(wanted + (given[o].item() if bias else 0.0))


def opened(model: Path, folder: Path, **lora):
    return policy.open_policy(model, folder, Options(lora=Lora(**lora)), 0)


@pytest.fixture(scope="module")
def adapter(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapter")
    models.make_adapter(tiny_model, folder)
    return folder


def gradients(model) -> dict[str, torch.Tensor]:
    model.zero_grad()
    logprobs = model(IDS).logits.float().log_softmax(-1)
    logprobs[:, :, 7].sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("coarse", [False, True])
def test_a_whole_model_has_pefts_logits_and_gradients(tiny_model, adapter, coarse):
    usual, quick = opened(tiny_model, adapter), opened(tiny_model, adapter)
    assert quicken(quick) == 6  # two layers, three targets
    with torch.autocast("cpu", torch.bfloat16, enabled=coarse):
        near = {"atol": 0.1, "rtol": 0.05} if coarse else {"atol": 1e-5, "rtol": 1e-5}
        assert torch.allclose(quick(IDS).logits.float(), usual(IDS).logits.float(), **near)
        wanted, found = gradients(usual), gradients(quick)
    assert wanted.keys() == found.keys() and wanted
    for name, gradient in wanted.items():
        assert found[name].dtype == torch.float32
        apart = (found[name] - gradient).norm() / gradient.norm()
        assert apart < (0.05 if coarse else 1e-5), name


def test_an_adapter_that_is_off_or_merged_is_off_or_merged(tiny_model, adapter):
    usual, quick = opened(tiny_model, adapter), opened(tiny_model, adapter)
    quicken(quick)
    with torch.no_grad(), quick.disable_adapter(), usual.disable_adapter():
        base = quick(IDS).logits
        assert torch.equal(base, usual(IDS).logits)
    with torch.no_grad():
        spoken = quick(IDS).logits
        assert (spoken - base).abs().max() > 0.01
        quick.merge_adapter()
        assert torch.allclose(quick(IDS).logits, spoken, atol=1e-5)


@pytest.mark.parametrize("kind", [{"use_dora": True}, {"lora_dropout": 0.1}, {"lora_bias": True}])
def test_what_the_operation_does_not_do_stays_pefts(tiny_model, kind):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    if kind == {"lora_bias": True}:
        base = AutoModelForCausalLM.from_config(
            base.config.__class__(**{**base.config.to_dict(), "attention_bias": True})
        )
    model = get_peft_model(base, LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM", **kind))
    assert quicken(model) == 0


@pytest.mark.parametrize(("parallel", "quick"), [("single", True), ("zero3", False)])
def test_the_trainer_takes_it_but_where_weights_are_divided(tiny_model, adapter, monkeypatch, parallel, quick):
    monkeypatch.setattr(Trainer, "_way", lambda self: lambda *given: None)
    options = Options(parallel=parallel)
    model = Trainer(policy.open_policy(tiny_model, adapter, options, 0), options).model
    layer = next(m for name, m in model.named_modules() if name.endswith("q_proj"))
    assert ("forward" in vars(layer)) == quick
