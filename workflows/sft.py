"""Supervised fine-tuning on conversations: an adapter, or a whole model, and its loss on held-out ones before and after.

    python workflows/run.py sft data.path=chats.jsonl model=FOLDER

The adapter is `runs/sft/adapter`; with `training.lora=null` all weights are trained, and the model is `runs/sft/model`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pydantic import Field

from apps import stages
from apps.data.sft import AGENT
from apps.data.sft import Options as Data
from apps.inference.driver import seed_of
from apps.topologies import solve_critique_revise
from apps.training import policy
from apps.training.options import Options as Training
from workflows import chain, model
from workflows.chain import Standing, Story
from workflows.config import Run, Section
from workflows.plan import Node, Plan
from workflows.steps import Steps

__all__ = ["Config", "dag", "stage"]


class Config(Run):
    """The configuration of `sft`."""

    model: str = Field("embedded", description="a local Hugging Face folder, or the model that comes with Merit")
    data: Data = Data()
    objective: Section = Field({"name": "sft"}, description="the loss")
    training: Training = Training(step_rows=32)
    shared: bool = Field(
        False,
        description="in a chain: one model is made for all agents, which later stages start from and take as their reference; "
        "false: each policy is tuned on what is its agent's",
    )


def dag(config: Config, plan: Plan) -> dict[str, Node]:
    """Adds rows, training, and the comparison of held-out losses."""
    if config.training.lora is not None:
        policy.check_targets(config.training.lora.targets, model.layers(config.model))
    base = {"base_model": model.identity(config.model)}
    training = config.training.model_dump(mode="json")
    rows = plan.add(stages.CONVERSATIONS, **conversations(config, [AGENT]), **base)
    seed = seed_of(config.seed, "training", AGENT) >> 1
    settings = {"objective": config.objective, "training": training, "seed": seed}
    trained = plan.add(stages.TRAIN, {"batch": rows}, agent=AGENT, **settings, **base)
    before = plan.add(stages.LIKELIHOOD, {"batch": rows}, training=training, **base)
    after = plan.add(stages.LIKELIHOOD, {"batch": rows, "train": trained}, training=training, **base)
    summary = plan.add(stages.LOSSES, {"data": rows, "before": before, "after": after}, name=config.name)
    return {"model" if config.training.lora is None else "adapter": trained, "summary": summary}


def stage(config: Config, steps: Steps, standing: Standing, story: Story) -> Standing:
    """The same in a chain: every policy of the team learns from what is for its agent, or for all, and plays on."""
    chain.check_weights(steps, config.shared)
    if config.shared:
        return chain.rebased(steps, standing, _whole(config, steps))
    steps.plan.round += 1
    owners = steps.owners
    bases = {owner: steps.models.get(owner, steps.model) for owner in owners}
    rows = {
        base: steps.add(stages.CONVERSATIONS, steps.start, **conversations(config, owners), base_model=base)
        for base in dict.fromkeys(bases.values())  # each has a chat template of its own
    }
    trained = [
        steps.train_one(rows[bases[owner]], standing.team, owner, config.objective, config.training) for owner in owners
    ]
    candidate = steps.gather(standing.team, trained)
    scores = steps.validate(candidate)
    team = steps.promote(standing.team, standing.scores, candidate, scores, rule="always")
    story.curve.append(scores)
    story.decisions.append(team)
    story.tell(train=trained)
    return replace(standing, team=team, scores=team)


def _whole(config: Config, steps: Steps) -> Node:
    """The model that the team stands on, fine-tuned on all rows; what is trained of it is added to its weights."""
    rows = steps.add(stages.CONVERSATIONS, steps.start, **conversations(config, [AGENT]), base_model=steps.model)
    trained = steps.train_one(rows, None, AGENT, config.objective, config.training)
    if config.training.lora is None:
        return trained
    return steps.add(stages.MERGE, {"train": trained, **steps.start}, base_model=steps.model)


def conversations(config: Config, agents: Sequence[str]) -> dict[str, Any]:
    """The options of the stage that makes rows."""
    data = config.data.model_dump(exclude={"path"}) | {"file": model.fingerprint(config.data.path, "data.path")}
    prompts = {} if config.data.path else dict(solve_critique_revise.PROMPTS)
    return {"data": data, "prompts": prompts, "agents": list(agents), "seed": config.seed}
