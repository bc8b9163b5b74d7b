"""The steps of value models: who is asked what a round's turns will be worth, and who learns what they were worth.

A value model is trained by the stage that agents are trained by, on the returns of the same plays, and goes on from round to
round as a team of its own; it is never measured or promoted. What the reference says of a turn's tokens is asked here too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from apps import stages
from apps.training import foresee as foreseen
from apps.training.options import Options as Training
from workflows import resolve
from workflows.plan import Node
from workflows.steps import Shards, Steps

READING = {"dtype", "attention", "packing", "micro_tokens"}  # settings of training that count where a model only reads


def untrained(steps: Steps) -> Node | None:
    """The value models as they come, which expect nothing; None where the advantage wants none."""
    return steps.add(stages.BASE, agents=names(steps)) if "values" in wanted(steps) else None


def foresee(steps: Steps, values: Node | None, played: Shards) -> dict[str, Shards]:
    """What the advantage wants to know of the tokens that were played, as inputs of `batch`."""
    found, model = {}, steps.config.value_model
    if values:
        inputs, options = {"policies": values, **steps.start}, {"view": model.view, **_reading(steps, model.training)}
        found["values"] = [steps.add(stages.VALUES, {"rollout": shard, **inputs}, **options) for shard in played]
    if "reference" in wanted(steps):
        options = _reading(steps, steps.config.training)
        found["reference"] = [
            steps.add(stages.REFERENCE, {"rollout": shard, **steps.start}, **options) for shard in played
        ]
    return found


def learn(steps: Steps, values: Node | None, trained: Sequence[Node]) -> Node | None:
    """The value models after a round whose agents were `trained`: on the returns of the same plays."""
    if values is None:
        return None
    model, (rows,) = steps.config.value_model, trained[0].inputs["batch"]
    objective = {"name": "value", "clip": model.clip}
    return steps.gather(
        values, [steps.train_one(rows, values, name, objective, model.training) for name in names(steps)]
    )


def names(steps: Steps) -> list[str]:
    """The value models: one an agent, or one for all."""
    return foreseen.learners(steps.agents, steps.config.value_model.view)


def wanted(steps: Steps) -> frozenset[str]:
    """What the advantage wants to know of tokens."""
    return resolve.token_wants(steps.config) if steps.trains else frozenset()


def _reading(steps: Steps, training: Training) -> dict[str, Any]:
    """How a model reads that is not trained."""
    return {"base_model": steps.model, "reading": training.model_dump(mode="json", include=READING)}
