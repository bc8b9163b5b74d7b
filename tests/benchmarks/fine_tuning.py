"""SFT and DPO against TRL on the same ragged batch: tokens a second of one optimiser step, LoRA r 16, float32.

The batch is what roles of the embedded team are taught: worked solutions, reviews and verdicts, 30 to 200 tokens with
their prompts. Every prompt is a different one in SFT; the two rows of a DPO pair share theirs. Tokens are those of prompts
and completions, without padding, and a prompt of a pair counts twice, however often it is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks import baseline
from tests.benchmarks.figures import RUNS, Figure, seconds

ROWS, PAIRS, RATE, BETA = 128, 64, 1e-4, 0.1


class Texts:
    """Prompts as the chat template renders them, and completions closed by the end token."""

    def __init__(self) -> None:
        from transformers import AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(baseline.MODEL)

    def examples(self, kind: str, count: int):
        """(prompt ids, completion ids) of role-format examples; of the same problems whatever the kind."""
        from apps.data import arithmetic_corpus as corpus
        from apps.inference import chat
        from apps.topologies.solve_critique_revise import PROMPTS

        made = corpus.generate(corpus.Options(kind=kind, examples=4 * count))
        spoken = [example for example in made if example.role][:count]
        for example in spoken:
            text = chat.rendered(self.tokenizer, "", PROMPTS[example.role].format(**example.fields))
            yield chat.encoded(self.tokenizer, text), chat.closed(self.tokenizer, example.completion)

    def single(self) -> list[tuple[np.ndarray, np.ndarray]]:
        return list(self.examples("careful", ROWS))

    def pairs(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Rows 2i and 2i + 1 answer one prompt: the second with the completion of another."""
        rows = list(self.examples("careful", PAIRS))
        other = [rows[(i + 1) % PAIRS][1] for i in range(PAIRS)]
        return [
            pair
            for (prompt, said), wrong in zip(rows, other, strict=True)
            for pair in ((prompt, said), (prompt, wrong))
        ]


def ours(rows: list[tuple[np.ndarray, np.ndarray]], name: str, paired: bool) -> Callable[[], Any]:
    """Takes one optimiser step over all rows."""
    from apps import leaf
    from apps.training import policy
    from apps.training.options import Options
    from apps.training.rows import Rows
    from apps.training.trainer import Trainer

    options = Options(lr=RATE, step_rows=len(rows))
    trainer = Trainer(policy.open_policy(Path(baseline.MODEL), None, options, 0), options)
    nothing = [np.zeros(0, np.float32)] * len(rows)
    given = Rows([p for p, _ in rows], [c for _, c in rows], nothing, np.ones(len(rows)), paired=paired)
    module, chosen = leaf.find("training/objectives", name), leaf.options("training/objectives", {"name": name})
    return lambda: list(trainer.fit(given, lambda batch: module.loss(batch, chosen), module.NEEDS, 0))


def sft(rows: list[tuple[np.ndarray, np.ndarray]]):
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    ids = [np.concatenate(row).tolist() for row in rows]
    marks = [[0] * len(prompt) + [1] * len(said) for prompt, said in rows]
    data = Dataset.from_dict(
        {"input_ids": ids * (baseline.WARM + RUNS), "completion_mask": marks * (baseline.WARM + RUNS)}
    )
    steps = {"per_device_train_batch_size": len(rows), "max_steps": baseline.WARM + RUNS, "learning_rate": RATE}
    config = SFTConfig(**baseline.arguments(completion_only_loss=True, **steps))
    return SFTTrainer(model=baseline.MODEL, args=config, train_dataset=data, peft_config=baseline.lora())


def dpo(rows: list[tuple[np.ndarray, np.ndarray]], texts: Texts):
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    said = [tuple(texts.tokenizer.decode(part) for part in row) for row in rows]
    pairs = zip(said[::2], said[1::2], strict=True)
    data = [{"prompt": prompt, "chosen": won, "rejected": lost} for (prompt, won), (_, lost) in pairs]
    steps = {"per_device_train_batch_size": len(data), "max_steps": baseline.WARM + RUNS, "learning_rate": RATE}
    config = DPOConfig(**baseline.arguments(beta=BETA, **steps))
    given = {"args": config, "processing_class": texts.tokenizer, "peft_config": baseline.lora()}
    return DPOTrainer(model=baseline.MODEL, train_dataset=Dataset.from_list(data * (baseline.WARM + RUNS)), **given)


def figures() -> Iterator[Figure]:
    texts = Texts()
    single, pairs = texts.single(), texts.pairs()
    yield compared("sft", single, ours(single, "sft", False), lambda: sft(single))
    yield compared("dpo", pairs, ours(pairs, "dpo", True), lambda: dpo(pairs, texts))


def compared(name: str, rows: list, step: Callable[[], Any], trainer: Callable[[], Any]) -> Figure:
    lengths = [len(prompt) + len(said) for prompt, said in rows]
    remark = f"{len(rows)} rows of {min(lengths)} to {max(lengths)} tokens"
    if not baseline.installed():
        mine = np.median([seconds(step) for _ in range(baseline.WARM + RUNS)][baseline.WARM :])
        return Figure(
            name, sum(lengths) / float(mine), "tokens/s", None, f"{remark}; no baseline: TRL is not installed"
        )
    mine, other, worked = baseline.in_turns(trainer(), step)
    remark = f"{remark}; against TRL's trainer, {worked:.1f} in processor time"
    return Figure(name, sum(lengths) / mine, "tokens/s", sum(lengths) / other, remark)
