"""Supervised fine-tuning on conversations: an adapter, or a whole model, and its loss on held-out ones before and after.

    python workflows/run.py sft data.path=chats.jsonl model=FOLDER

The adapter is `runs/sft/adapter`; with `training.lora=null` all weights are trained, and the model is `runs/sft/model`.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from apps import stages
from apps.data.sft import AGENT
from apps.data.sft import Options as Data
from apps.inference.driver import seed_of
from apps.topologies import solve_critique_revise
from apps.training import policy
from apps.training.options import Options as Training
from workflows import model
from workflows.config import Run, Section
from workflows.plan import Node, Plan

__all__ = ["Config", "dag"]


class Config(Run):
    """The configuration of `sft`."""

    model: str = Field("embedded", description="a local Hugging Face folder, or the model that comes with Merit")
    data: Data = Data()
    objective: Section = Field({"name": "sft"}, description="the loss")
    training: Training = Training(step_rows=32)


def dag(config: Config, plan: Plan) -> dict[str, Node]:
    """Adds rows, training, and the comparison of held-out losses."""
    return add(config, plan)


def add(config: Config, plan: Plan, start: Node | None = None) -> dict[str, Node]:
    """The same from the whole model of `start`, where a chain made one: `adapter` or `model`, and `summary`."""
    if start is None and config.training.lora is not None:
        policy.check_targets(config.training.lora.targets, model.layers(config.model))
    base = {"base_model": model.identity(config.model)} if start is None else {}
    given: dict[str, Any] = {"start": start} if start is not None else {}
    data = config.data.model_dump(exclude={"path"}) | {"file": model.fingerprint(config.data.path, "data.path")}
    prompts = {} if config.data.path else dict(solve_critique_revise.PROMPTS)
    training = config.training.model_dump(mode="json")
    rows = plan.add(stages.CONVERSATIONS, given, data=data, prompts=prompts, seed=config.seed, **base)
    seed = seed_of(config.seed, "training", AGENT) >> 1
    settings = {"objective": config.objective, "training": training, "seed": seed}
    trained = plan.add(stages.TRAIN, {**given, "batch": rows}, agent=AGENT, **settings, **base)
    untrained = plan.add(stages.LIKELIHOOD, {**given, "batch": rows}, training=training, **base)
    after = plan.add(stages.LIKELIHOOD, {**given, "batch": rows, "train": trained}, training=training, **base)
    shown = {"data": rows, "before": untrained, "after": after}
    summary = plan.add(stages.LOSSES, shown, name=config.name)
    return {"model" if config.training.lora is None else "adapter": trained, "summary": summary}
