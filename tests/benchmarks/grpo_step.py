"""One GRPO step end to end, against TRL: 32 prompts, 8 completions each, up to 40 tokens, then one optimiser step.

LoRA r 16 on all linear layers of the embedded model, temperature 1, DAPO's loss without KL, float32. Ours is sampling,
grading, advantages, rows, the update, saving the adapter and reading it again for the next rollout.

The floor. The model has .87 M weights and the adapter .16 M, so a token costs 1.7 MFLOP forward with the adapter merged, 2.1
beside; about twice that forward and backward in inputs, and the adapter's own gradients. A step samples some 4,000
tokens after 32 prompts of 40 (5,300 tokens read: 9 GFLOP) and trains on as many (2.1 + 2.4 MFLOP each: 24 GFLOP). At the
137 GFLOP/s that one core reaches in float32 on a product of these widths the floor is .24 s of one core, .12 s of two.
Between the floor and what is measured lie elementwise work (norms, rotary embedding, gates), attention, and 1.4 ms, mostly of
Python, for each of 40 decoding steps. docs/log.md has what was tried.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np

from tests.benchmarks import baseline
from tests.benchmarks.figures import RUNS, Figure, seconds

TASKS, SAMPLES, TOKENS, RATE = 32, 8, 40, 1e-4
CLIP_LOW, CLIP_HIGH = 0.2, 0.28


class Ours:
    """Takes one step after another, each from where the last one left the adapter."""

    def __init__(self) -> None:
        from apps.inference.engines import transformers
        from apps.records import Policy
        from apps.training import policy
        from apps.training.options import Options
        from apps.training.trainer import Trainer

        self.engine = transformers.load(baseline.MODEL, transformers.Options(), "cpu")
        options = Options(lr=RATE, step_rows=TASKS * SAMPLES)
        self.trainer = Trainer(policy.open_policy(Path(baseline.MODEL), None, options, 0), options)
        self.spoken, self.folder, self.numbers = Policy("solver"), Path(tempfile.mkdtemp()), count()
        self.tokens: list[int] = []

    def step(self) -> None:
        from apps.records import Policy
        from apps.training import policy

        number = next(self.numbers)
        rows = self.rows(number)
        self.update(rows)
        out = self.folder / str(number)
        self.spoken = Policy("solver", policy.save(self.trainer.model, Path(baseline.MODEL), out), str(out))

    def rows(self, number: int):
        """Sampled, graded, with advantages; groups without variance are left out."""
        from apps.training.rows import Rows

        asked = list(self.requests(number))
        said = self.engine.generate(asked)
        self.tokens.append(sum(len(completion.ids) for completion in said))
        rewards = np.array([graded(r.task, c.text) for r, c in zip(asked, said, strict=True)]).reshape(-1, SAMPLES)
        centred = rewards - rewards.mean(1, keepdims=True)
        advantages = (centred / (rewards.std(1, ddof=1, keepdims=True) + 1e-6)).ravel()
        kept = np.flatnonzero(advantages)
        columns = ([asked[i].prompt_ids for i in kept], [said[i].ids for i in kept], [said[i].logprobs for i in kept])
        return Rows(*columns, advantages[kept])

    def requests(self, number: int):
        from apps.effects import Ask
        from apps.inference.engine import Request
        from apps.records import Sampling

        for place, task in enumerate(tasks()[number * TASKS :][:TASKS]):
            text, ids = self.engine.render("", prompt(task))
            for sample in range(SAMPLES):
                seed = (number * TASKS + place) * SAMPLES + sample
                yield Request(self.spoken, text, ids, Sampling(1.0, TOKENS), seed, task, Ask("solver", {}))

    def update(self, rows) -> None:
        from apps.training.objectives import dapo

        options = dapo.Options(clip_low=CLIP_LOW, clip_high=CLIP_HIGH)
        list(self.trainer.fit(rows, lambda batch: dapo.loss(batch, options), dapo.needs(options), 0))


def theirs():
    """TRL's trainer with the same sampling, reward and loss."""
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    tokenizer = AutoTokenizer.from_pretrained(baseline.MODEL)
    known = {task.id: task for task in tasks()}
    said = [[{"role": "user", "content": prompt(task)}] for task in known.values()]
    data = Dataset.from_dict({"prompt": said, "task": list(known)})

    def reward(completions, task, **_):
        return [graded(known[t], completion[0]["content"]) for t, completion in zip(task, completions, strict=True)]

    sampling = {"num_generations": SAMPLES, "max_completion_length": TOKENS, "temperature": 1.0, "top_k": 0}
    objective = {"loss_type": "dapo", "beta": 0.0, "epsilon": CLIP_LOW, "epsilon_high": CLIP_HIGH}
    steps = {"per_device_train_batch_size": TASKS * SAMPLES, "max_steps": baseline.WARM + RUNS, "learning_rate": RATE}
    config = GRPOConfig(**baseline.arguments(**sampling, **objective, **steps))
    given = {"args": config, "train_dataset": data, "processing_class": tokenizer, "peft_config": baseline.lora()}
    return GRPOTrainer(model=baseline.MODEL, reward_funcs=reward, **given)


def tasks():
    from apps.tasks import arithmetic

    return arithmetic.load("train", arithmetic.Options(train=TASKS * (baseline.WARM + RUNS)))


def prompt(task) -> str:
    from apps.topologies.solve_critique_revise import PROMPTS

    return PROMPTS["solver"].format(question=task.question)


def graded(task, text: str) -> float:
    from apps.reward import exact_number

    return exact_number.verify(task, text, exact_number.Options()).score


def figures() -> Iterator[Figure]:
    ours = Ours()
    if baseline.installed():
        mine, other, worked = baseline.in_turns(theirs(), ours.step)
        remark = f"against TRL's GRPOTrainer, {worked:.1f} in processor time"
    else:
        mine, other = float(np.median([seconds(ours.step) for _ in range(baseline.WARM + RUNS)][baseline.WARM :])), None
        remark = "no baseline: TRL is not installed"
    yield Figure("grpo_step", mine, "s", other, f"{remark}; {np.median(ours.tokens):.0f} tokens sampled a step")
