"""Tiny models and adapters with random weights: real ones, made in a second."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from apps.records import Policy, Task
from apps.tasks import arithmetic
from apps.topologies import solve_critique_revise

PROMPTS = solve_critique_revise.PROMPTS
WORDS = ("ANSWER: VERDICT: CORRECT INCORRECT . , ?", *PROMPTS.values())


def tasks(count: int = 6, split: str = "train") -> list[Task]:
    return arithmetic.load(split, arithmetic.Options(levels=(2,), train=count, validation=count, test=count))


def make_model(folder: Path, context: int = 256, seed: int = 0, more: Sequence[str] = ()) -> Path:
    """Hidden 32, 2 layers; `more` words are in its vocabulary alone. Its weights are wide enough for its distributions to differ from place to place."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from apps.data import tokenizer

    torch.set_num_threads(1)
    made = tokenizer.make([*WORDS, *more, *(task.question for task in tasks(40))])
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(made),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=context,
            initializer_range=0.3,
            tie_word_embeddings=True,
            pad_token_id=made.pad_token_id,
            eos_token_id=made.eos_token_id,
            bos_token_id=None,
        )
    )
    model.save_pretrained(folder)
    made.save_pretrained(folder)
    return folder


def make_adapter(model: Path, folder: Path, agent: str = "solver", seed: int = 1, **config) -> Policy:
    """An adapter in PEFT format with random A and B; `config` is LoraConfig's."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from apps.training.policy import ADAPTER, digest_of

    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    torch.manual_seed(seed)
    given = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj", "down_proj"], **config}
    adapted = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **given))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    adapted.save_pretrained(folder)
    return Policy(agent, digest_of(folder / ADAPTER), str(folder))


def make_reward_model(model: Path, folder: Path, seed: int = 1) -> Policy:
    """An adapter with a random scalar head beside it."""
    import torch
    from safetensors.torch import save_file

    made = make_adapter(model, folder, "judge", seed)
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn((1, 32), generator=generator)
    save_file({"weight": weight, "bias": torch.randn(1, generator=generator)}, folder / "scalar_head.safetensors")
    return made


def ids(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int32)


def random_ids(rng: np.random.Generator, length: int, vocabulary: int = 60) -> np.ndarray:
    """Words only, no special token."""
    return rng.integers(5, vocabulary, length).astype(np.int32)


def same(left: Sequence[np.ndarray], right: Sequence[np.ndarray]) -> bool:
    return len(left) == len(right) and all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))
