"""An adapter added to the weights: the same logits as beside them, and the weights of before to the last bit."""

from __future__ import annotations

import pytest
import torch

from apps.inference.lora import Adapters
from tests import models

KINDS = {"small": {}, "everywhere": {"target_modules": "all-linear"}, "dora": {"use_dora": True}}
IDS = torch.arange(5, 33).reshape(4, 7)


def base(model, dtype=torch.float32):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(model, dtype=dtype).eval()


@pytest.fixture(scope="module")
def folders(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters")
    for number, (name, kind) in enumerate(KINDS.items()):
        models.make_adapter(tiny_model, folder / name, seed=number, **kind)
    return folder


def served(model, folders, merge_gib):
    adapters = Adapters(model, 16, merge_gib)
    for name in KINDS:
        adapters.load(name, folders / name)
    return adapters


def hooked(adapters):
    return bool(adapters.sites)


@torch.inference_mode()
@pytest.mark.parametrize("name", KINDS)
def test_merged_logits_are_those_beside_the_weights(tiny_model, folders, name):
    merged, beside = base(tiny_model), base(tiny_model)
    inside, outside = served(merged, folders, 1.0), served(beside, folders, 0.0)
    for adapters in (inside, outside):
        adapters.choose([name] * 4)
    assert not hooked(inside) and hooked(outside)
    assert torch.allclose(merged(IDS).logits, beside(IDS).logits, atol=1e-5, rtol=0)
    assert (merged(IDS).logits - base(tiny_model)(IDS).logits).abs().max() > 0.01


@torch.inference_mode()
def test_after_every_change_of_company_logits_are_right(tiny_model, folders):
    """Alone, another alone, together, with the base, the base alone, alone again."""
    model, plain = base(tiny_model), base(tiny_model)
    adapters, outside = served(model, folders, 1.0), served(plain, folders, 0.0)
    for rows in (["small"] * 4, ["dora"] * 4, ["small", "everywhere"] * 2, ["small"] * 3 + ["base"], ["base"] * 4):
        for one in (adapters, outside):
            one.choose(rows)
        assert torch.allclose(model(IDS).logits, plain(IDS).logits, atol=1e-5, rtol=0), rows
        assert hooked(adapters) == (len(set(rows)) > 1)


@torch.inference_mode()
def test_the_weights_of_before_come_back_to_the_last_bit_and_ties_hold(tiny_model, folders):
    model = base(tiny_model)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    adapters = served(model, folders, 1.0)
    adapters.choose(["everywhere"])
    assert any(not torch.equal(before[name], weight) for name, weight in model.state_dict().items())
    adapters.choose(["base"])
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())
    assert model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.parametrize(("dtype", "limit"), [(torch.bfloat16, 1.0), (torch.float32, 1e-6)])
def test_coarse_weights_and_those_past_the_limit_stay_as_they_are(tiny_model, folders, dtype, limit):
    adapters = served(base(tiny_model, dtype), folders, limit)
    adapters.choose(["small"] * 4)
    assert hooked(adapters) and adapters.merged.digest is None
