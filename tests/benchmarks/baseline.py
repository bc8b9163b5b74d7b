"""The baseline: TRL's trainers on the embedded model, made to take one timed step whenever they are asked for one.

A trainer of TRL runs its own loop. So ours is run from within it: before each of its steps, and what its step takes is timed.
Collating a batch comes before that and is not counted, in its favour.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

MODEL = "apps/data/embedded"
WARM = 2  # first steps that are not counted


def installed() -> bool:
    from importlib.util import find_spec

    return find_spec("trl") is not None


def arguments(**given: Any) -> dict[str, Any]:
    """What all of TRL's configurations are given here: float32 on the CPU, AdamW at a constant rate, no side work."""
    return {
        "output_dir": tempfile.mkdtemp(),
        "use_cpu": True,
        "bf16": False,
        "report_to": [],
        "disable_tqdm": True,
        "save_strategy": "no",
        "logging_steps": 10_000,
        "gradient_checkpointing": False,
        "lr_scheduler_type": "constant",
        **given,
    }


def lora():
    from peft import LoraConfig

    return LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")


def in_turns(trainer: Any, ours: Callable[[], Any]) -> tuple[float, float, float]:
    """Median seconds of a step, ours and theirs, taken in turns; and the ratio of the processor's time, which a busy machine bends less."""
    from transformers import TrainerCallback

    mine: list[tuple[float, float]] = []
    other: list[tuple[float, float]] = []

    class Turns(TrainerCallback):
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            began = clocks()
            ours()
            mine.append(since(began))
            self.began = clocks()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            other.append(since(self.began))

    trainer.add_callback(Turns())
    trainer.train()
    (wall, worked), (their_wall, they_worked) = (
        [statistics.median(column) for column in zip(*taken[WARM:], strict=True)] for taken in (mine, other)
    )
    return wall, their_wall, they_worked / worked


def clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def since(began: tuple[float, float]) -> tuple[float, float]:
    return tuple(now - then for now, then in zip(clocks(), began, strict=True))
