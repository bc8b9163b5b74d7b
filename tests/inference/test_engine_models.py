"""The engine on models of other build, whose caches and attention differ: what it stores is what the model says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from apps.effects import Ask
from apps.inference.engine import Request
from apps.inference.engines import transformers
from apps.records import Policy, Sampling
from tests import models

SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
SMALL |= {"num_key_value_heads": 2, "max_position_embeddings": 128, "initializer_range": 0.3}
KINDS = {
    "llama": {**SMALL, "tie_word_embeddings": True},
    "qwen2": SMALL,  # biases, shared key heads
    "mistral": {**SMALL, "sliding_window": 6},  # shorter than the prompts
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128, "initializer_range": 0.3},
    "qwen3_next": {**SMALL, "num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16, "head_dim": 8}
    | {"shared_expert_intermediate_size": 16, "linear_num_value_heads": 2, "linear_num_key_heads": 2}
    | {"linear_key_head_dim": 8, "linear_value_head_dim": 8, "layer_types": ["linear_attention", "full_attention"]},
}


@pytest.fixture(scope="module", params=KINDS)
def engine(request, tmp_path_factory):
    from transformers import AutoConfig, AutoModelForCausalLM

    from apps.data import tokenizer

    folder = tmp_path_factory.mktemp(request.param)
    made = tokenizer.make([*models.WORDS, *(task.question for task in models.tasks(40))])
    ends = {"pad_token_id": made.pad_token_id, "eos_token_id": made.eos_token_id, "bos_token_id": None}
    torch.manual_seed(0)
    config = AutoConfig.for_model(request.param, vocab_size=len(made), **ends, **KINDS[request.param])
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    made.save_pretrained(folder)
    return transformers.load(str(folder), transformers.Options(rows=32), "cpu")


def requests(engine, copies=4):
    for i, task in enumerate(models.tasks(4)):
        prompt, ids = engine.render("", task.question)
        for copy in range(copies):
            yield Request(Policy("solver"), prompt, ids, Sampling(max_new_tokens=40), 10 * i + copy, task, Ask("x", {}))


def test_what_is_stored_is_what_the_model_says_of_it_without_a_cache(engine):
    asked = list(requests(engine))
    said = engine.generate(asked)
    assert len({len(completion.ids) for completion in said}) > 1  # rows have left the batch
    for request, completion in zip(asked, said, strict=True):
        ids = torch.from_numpy(np.concatenate([request.prompt_ids, completion.ids]).astype(np.int64))[None]
        with torch.inference_mode():
            logprobs = engine.model(ids, use_cache=False).logits[0].log_softmax(-1)
        places = range(len(request.prompt_ids) - 1, ids.shape[1] - 1)
        wanted = [logprobs[place, token].item() for place, token in zip(places, completion.ids, strict=True)]
        assert np.allclose(completion.logprobs, wanted, atol=1e-3)


def test_company_changes_nothing(engine):
    asked = list(requests(engine))
    together = engine.generate(asked)
    apart = [engine.generate([one])[0] for one in asked]
    equal = [np.array_equal(a.ids, b.ids) for a, b in zip(together, apart, strict=True)]
    assert np.mean(equal) >= 0.99
