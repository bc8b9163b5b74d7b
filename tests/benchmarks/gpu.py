"""On an NVIDIA GPU: decoding and a training step of a .5 B model of random weights in bfloat16, LoRA r 16.

Tokens a second, and the share of the matrix peak that is measured in the same call by a product of 8192 x 8192. A token
costs two operations a weight forward, and four forward and backward, since frozen weights have no gradient. Not run where
there is no CUDA.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks import baseline
from tests.benchmarks.figures import RUNS, Figure, seconds

SHAPE = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 28, "num_attention_heads": 16}
SHAPE |= {"num_key_value_heads": 8, "vocab_size": 32_000, "max_position_embeddings": 2048}
PROMPT, COMPLETION, SAMPLES, PROMPTS, SIDE = 256, 256, 8, 32, 8192  # tokens, tokens, rows a prompt, prompts, matrix


def figures() -> Iterator[Figure]:
    import torch

    if not torch.cuda.is_available():
        yield Figure("gpu", None, "tokens/s", remark="not run: there is no CUDA here")
        return
    yield from measured("cuda", SHAPE, PROMPTS, COMPLETION, SIDE)


def measured(device: str, shape: dict[str, int], prompts: int, completion: int, side: int) -> Iterator[Figure]:
    """Peak, decoding and training on a device."""
    peak = matrix_peak(device, side)
    yield Figure("matrix_peak", peak / 1e12, "TFLOP/s", None, f"{device_name(device)}, bfloat16, {side} x {side}")
    with tempfile.TemporaryDirectory() as folder:
        weights = make_model(Path(folder), shape)
        decoding, rows = decode(Path(folder), device, prompts, completion)
        size = f"{weights / 1e9:.2f} B weights, {prompts * SAMPLES} rows of {PROMPT} + {completion} tokens"
        yield Figure(
            "gpu_decode", decoding, "tokens/s", remark=f"{size}; {2 * weights * decoding / peak:.1%} of the peak"
        )
        training = train(Path(folder), device, rows)
        share = 4 * weights * training / peak
        yield Figure(
            "gpu_train", training, "tokens/s", remark=f"{size}, each prompt read once; {share:.1%} of the peak"
        )


def timed(work: Callable[[], Any], device: str) -> float:
    """Median seconds, the device's queue emptied before and after."""
    import torch

    def whole() -> None:
        work()
        if device != "cpu":
            torch.cuda.synchronize()

    whole()
    return statistics.median(seconds(whole) for _ in range(RUNS))


def matrix_peak(device: str, side: int) -> float:
    """Operations a second."""
    import torch

    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 10 * 2 * side**3 / timed(lambda: [a @ b for _ in range(10)], device)


def make_model(folder: Path, shape: dict[str, int]) -> int:
    """A Llama of random weights with the embedded model's tokenizer; returns the number of weights that a token meets."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(baseline.MODEL)
    torch.manual_seed(0)
    ends = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    model = LlamaForCausalLM(LlamaConfig(**shape, **ends, tie_word_embeddings=True)).to(torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model.num_parameters()


def decode(folder: Path, device: str, prompts: int, completion: int):
    """Sampled tokens a second, and rows of the last sample."""
    from apps.effects import Ask
    from apps.inference.engine import Request
    from apps.inference.engines import transformers
    from apps.records import Policy, Sampling, Task
    from apps.training.rows import Rows

    engine = transformers.load(str(folder), transformers.Options(dtype="bfloat16", rows=prompts * SAMPLES), device)
    rng, task = np.random.default_rng(0), Task("t", "", "", "arithmetic", "train")
    given = [rng.integers(5, 90, PROMPT).astype(np.int32) for _ in range(prompts)]
    asked = [
        Request(
            Policy("solver"), "", ids, Sampling(1.0, completion), number * SAMPLES + sample, task, Ask("solver", {})
        )
        for number, ids in enumerate(given)
        for sample in range(SAMPLES)
    ]
    took = timed(lambda: engine.generate(asked), device)
    said = engine.generate(asked)
    rows = Rows([r.prompt_ids for r in asked], [c.ids for c in said], [c.logprobs for c in said], np.ones(len(asked)))
    return sum(len(c.ids) for c in said) / took, rows


def train(folder: Path, device: str, rows) -> float:
    """Tokens a second of an optimiser step, a prompt that rows share counted once."""
    from apps.training import policy
    from apps.training.objectives import dapo
    from apps.training.options import Options
    from apps.training.trainer import Trainer

    options = Options(lr=1e-5, step_rows=len(rows), micro_tokens=16_384, dtype="bfloat16")
    trainer = Trainer(policy.open_policy(folder, None, options, 0), options, device)
    chosen = dapo.Options()
    took = timed(lambda: list(trainer.fit(rows, lambda b: dapo.loss(b, chosen), dapo.needs(chosen), 0)), device)
    read = len(rows.prompts[0]) * len({p.tobytes() for p in rows.prompts}) + sum(map(len, rows.completions))
    return read / took


def device_name(device: str) -> str:
    import torch

    return torch.cuda.get_device_name() if device != "cpu" else "processor"
