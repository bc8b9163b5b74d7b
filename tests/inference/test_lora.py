"""Several adapters in one batch, against PEFT's own model, one adapter at a time."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from apps.inference.lora import Adapters, Update, gain, read
from apps.records import MeritError
from tests import models

KINDS = {
    "small": {"r": 2, "lora_alpha": 4},
    "large": {"r": 8, "lora_alpha": 4},
    "stabilised": {"r": 4, "lora_alpha": 8, "use_rslora": True},
    "everywhere": {"r": 3, "target_modules": "all-linear"},
    "decomposed": {"r": 4, "target_modules": "all-linear", "use_dora": True},
    "both": {"r": 2, "lora_alpha": 3, "use_dora": True, "use_rslora": True},
}


def base(model):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def adapters(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters")
    for number, (name, kind) in enumerate(KINDS.items()):
        models.make_adapter(tiny_model, folder / name, seed=number, **kind)
    return folder


@pytest.fixture(scope="module")
def expected(tiny_model, adapters):
    """Logits of the same ids by PEFT with each adapter, and by the model alone. {name: (4, 7, V)}"""
    from peft import PeftModel

    with torch.inference_mode():
        found = {n: PeftModel.from_pretrained(base(tiny_model), adapters / n).eval()(IDS).logits for n in KINDS}
        return {**found, "base": base(tiny_model)(IDS).logits}


IDS = torch.arange(5, 33).reshape(4, 7)


def mixed(tiny_model, adapters, keep=16):
    model = base(tiny_model)
    served = Adapters(model, keep)
    for name in KINDS:
        served.load(name, adapters / name)
    return model, served


def agree(logits, names, rows, expected):
    for got, name, row in zip(logits, names, rows, strict=True):
        assert torch.allclose(got, expected[name][row], atol=1e-5, rtol=0), name


def test_adapters_change_what_is_said(expected):
    """Else the other tests would pass with no adapter at all."""
    assert all((expected[name] - expected["base"]).abs().max() > 0.01 for name in KINDS)


@torch.inference_mode()
@pytest.mark.parametrize(
    "names",
    [
        ["small", "large", "base", "stabilised"],
        ["everywhere", "base", "small", "everywhere"],
        ["decomposed", "base", "both", "large"],
    ],
)
def test_rows_of_one_batch_each_speak_with_their_own_adapter(tiny_model, adapters, expected, names):
    model, served = mixed(tiny_model, adapters)
    served.choose(names)
    agree(model(IDS).logits, names, range(4), expected)


@torch.inference_mode()
def test_base_rows_are_untouched_to_the_last_bit(tiny_model, adapters, expected):
    model, served = mixed(tiny_model, adapters)
    served.choose(["base", "large", "base", "small"])
    assert torch.equal(model(IDS).logits[[0, 2]], expected["base"][[0, 2]])
    served.choose(["base", "decomposed", "base", "both"])
    assert torch.equal(model(IDS).logits[[0, 2]], expected["base"][[0, 2]])
    served.choose(["base"] * 4)
    assert torch.equal(model(IDS).logits, expected["base"])


@torch.inference_mode()
def test_rows_may_be_dropped_repeated_and_reordered(tiny_model, adapters, expected):
    model, served = mixed(tiny_model, adapters)
    names = ["small", "decomposed", "base", "everywhere"]
    served.choose(names)
    rows = list(range(4))
    for kept in ([3, 1, 1, 0, 2], [4, 0, 2], [1, 1]):  # each counts in the rows of before
        served.keep_rows(torch.tensor(kept))
        rows = [rows[k] for k in kept]
        agree(model(IDS[rows]).logits, [names[row] for row in rows], rows, expected)


@torch.inference_mode()
def test_what_a_batch_needs_is_never_dropped(tiny_model, adapters, expected):
    """Room for two: the one that was loaded first is used again beside a new one; then more than there is room for."""
    model = base(tiny_model)
    served = Adapters(model, 2)
    for names in (
        ["small", "large"],
        ["small", "stabilised"],
        ["stabilised", "everywhere", "small", "large"],
        ["large"],
    ):
        for name in names:
            served.load(name, adapters / name)
        served.choose(names)
        agree(model(IDS[: len(names)]).logits, names, range(len(names)), expected)
    assert len(served.loaded) == 2 and "large" in served.loaded


def test_the_scale_is_alpha_over_r_or_over_its_root(tiny_model, adapters):
    like = torch.zeros(1)
    from safetensors.torch import load_file

    for name, scale in (("small", 4 / 2), ("large", 4 / 8), ("stabilised", 8 / 4**0.5)):
        tensors = load_file(adapters / name / "adapter_model.safetensors")
        module = "model.layers.0.self_attn.q_proj"
        b = tensors[f"base_model.model.{module}.lora_B.weight"]
        assert torch.equal(read(adapters / name, like)[module].b, b.T * scale)


def changed(source: Path, target: Path, **config) -> Path:
    shutil.copytree(source, target)
    file = target / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | config))
    return target


@pytest.mark.parametrize("config", [{"rank_pattern": {"q_proj": 2}}, {"alpha_pattern": {"q_proj": 2}}])
def test_ranks_that_differ_by_layer_are_refused(adapters, tmp_path, config):
    with pytest.raises(MeritError, match="rank and alpha patterns"):
        read(changed(adapters / "small", tmp_path / "changed", **config), torch.zeros(1))


def test_the_gain_is_the_magnitude_over_the_norm_by_hand():
    """W = [[3, 0], [0, 1]], s B A = [[0, 4], [0, 0]]: norms 5 and 1, magnitudes 10 and 3."""
    layer = torch.nn.Linear(2, 2)
    layer.weight.data = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    update = Update(torch.tensor([[0.0], [2.0]]), torch.tensor([[2.0, 0.0]]), torch.tensor([10.0, 3.0]))
    assert gain(layer, update).tolist() == [2.0, 3.0]


@torch.inference_mode()
def test_a_gain_scales_what_comes_of_the_inputs_and_not_the_bias():
    """x = [1, 1]: the moved layer gives [7, 1] + bias [5, 5]; gains 2 and 3 make [14, 3] + [5, 5]."""
    model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    model[0].weight.data, model[0].bias.data = torch.tensor([[3.0, 0.0], [0.0, 1.0]]), torch.tensor([5.0, 5.0])
    served = Adapters(model)
    served.loaded["x"] = {
        "0": Update(torch.tensor([[0.0], [2.0]]), torch.tensor([[2.0, 0.0]]), torch.tensor([10.0, 3.0]))
    }
    served.choose(["x", "base"])
    assert model(torch.ones(2, 1, 2)).tolist() == [[[19.0, 8.0]], [[8.0, 6.0]]]


def test_an_adapter_of_a_model_of_another_width_is_told_so(tiny_model, adapters):
    model = base(tiny_model)
    served = Adapters(model)
    served.load("small", adapters / "small")
    layer = model.model.layers[0].mlp
    layer.down_proj = torch.nn.Linear(48, 32)
    with pytest.raises(MeritError, match="another model: its layer 'model.layers.0.mlp.down_proj' takes 64 numbers"):
        served.choose(["small"])


def test_weights_that_would_be_left_out_are_refused(tiny_model, tmp_path):
    models.make_adapter(tiny_model, tmp_path / "head", modules_to_save=["lm_head"])
    with pytest.raises(MeritError, match="lm_head"):
        read(tmp_path / "head", torch.zeros(1))


def test_no_adapter_and_one_of_another_model_are_told_so(tiny_model, adapters, tmp_path):
    with pytest.raises(MeritError, match="no adapter in PEFT format"):
        read(tmp_path, torch.zeros(1))
    served = Adapters(torch.nn.Linear(2, 2))
    served.load("small", adapters / "small")
    with pytest.raises(MeritError, match="another model"):
        served.choose(["small"])
