"""Position scaling: formulas by hand, and what transformers makes of the config."""

from __future__ import annotations

import math

import pytest
import torch

from apps.data import position_scaling
from apps.data.position_scaling import Options
from apps.records import MeritError

SHAPE = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 8, "vocab_size": 16}


def config(**more):
    from transformers import LlamaConfig

    return LlamaConfig(
        **SHAPE, max_position_embeddings=64, rope_parameters={"rope_type": "default", "rope_theta": 10000.0}, **more
    )


def frequencies(name: str, factor: float) -> tuple[torch.Tensor, float]:
    """As a model with the scaled config has them, and the factor on queries and keys."""
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    given = config().to_dict()
    made = LlamaRotaryEmbedding(
        LlamaConfig(**{**given, **position_scaling.scaled(given, Options(name=name, factor=factor))})
    )
    return made.inv_freq, made.attention_scaling


def test_the_rules_by_hand():
    plain = torch.tensor([10000.0 ** (-2 * i / 16) for i in range(8)])
    assert torch.allclose(frequencies("none", 1)[0], plain)
    assert torch.allclose(frequencies("linear", 4)[0], plain / 4)
    ntk, scale = frequencies("ntk", 4)
    assert ntk[0] == 1 and float(ntk[-1]) == pytest.approx(float(plain[-1]) / 4, rel=1e-5) and scale == 1
    assert float(ntk[3]) == pytest.approx((10000 * 4 ** (16 / 14)) ** (-6 / 16), rel=1e-5)
    yarn, scale = frequencies("yarn", 4)
    assert float(yarn[0]) == pytest.approx(1) and float(yarn[-1]) == pytest.approx(float(plain[-1]) / 4, rel=1e-5)
    assert scale == pytest.approx(0.1 * math.log(4) + 1)
    assert torch.all(yarn <= plain * 1.00001) and torch.all(yarn >= plain / 4.00001)


def test_the_context_grows_and_what_cannot_be_scaled_is_refused():
    given = config().to_dict()
    assert position_scaling.scaled(given, Options()) == {}
    assert position_scaling.scaled(given, Options(name="yarn", factor=4))["max_position_embeddings"] == 256
    once = {**given, **position_scaling.scaled(given, Options(name="linear", factor=2))}
    with pytest.raises(MeritError, match="scaled already"):
        position_scaling.scaled(once, Options(name="ntk", factor=2))
    with pytest.raises(MeritError, match="no single set of rotary positions"):
        position_scaling.scaled({**given, "rope_parameters": None}, Options(name="ntk", factor=2))
