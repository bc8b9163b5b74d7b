"""Trains a process reward model and says how good it is: an adapter that tells good steps of a team from bad ones.

Plays of training tasks are gone on with from every step; the share that ends right is the step's label; the training
stage that agents are trained by makes an adapter on the team's base model; its scores of held-out steps are compared with
how plays that go on from them end. The adapter is `runs/process_reward/adapter`, for `credit.name=process_reward`. With
`reading.by=head` it has a scalar head that reads a play once and scores all of its steps; else it judges each by a word.
"""

from __future__ import annotations

from pydantic import Field

from apps import leaf, stages
from apps.inference.driver import seed_of
from apps.records import MeritError
from apps.reward_model.app import AGENT, by_word
from apps.reward_model.labels import Options as Labels
from apps.training.options import Options as Training
from workflows.config import Played, PostTrain, Section
from workflows.plan import Node, Plan
from workflows.steps import Shards, Steps

__all__ = ["Config", "dag"]


class Config(Played):
    """The configuration of `process_reward`; the team's sections are those of `post_train`."""

    plays: int = Field(2, ge=1, description="plays of each task")
    training_tasks: int = Field(160, ge=1, description="tasks of the train split whose steps are learnt from")
    held_out_tasks: int = Field(60, ge=1, description="tasks of the validation split whose steps it is appraised on")
    repeats: int = Field(4, ge=1, description="plays that go on from each step")
    shards: int = Field(2, ge=1, description="tasks of the DAG that the plays are split into")
    labels: Labels = Labels()
    reading: Section = Field({}, description="options of credit.process_reward: what the reward model reads and says")
    shuffle_labels: bool = Field(False, description="control experiment: the labels are dealt out at random")
    training: Training = Training(epochs=3, step_rows=32)


def dag(config: Config, plan: Plan) -> dict[str, Node]:
    """Adds labels, training and appraisal."""
    if config.engine["name"] == "scripted" or config.training.lora is None:
        raise MeritError(
            "process_reward trains an adapter on a model: engine.name=transformers and a training.lora are expected; "
            f"given engine.name={config.engine['name']}, training.lora={config.training.lora}"
        )
    if asked := {"name", "adapter", "model"} & set(config.reading):
        raise MeritError(f"reading.{min(asked)}: who reads is trained here; `reading` says what it reads and says")
    reading = {**config.reading, "name": "process_reward"}
    leaf.options("credit", reading)
    steps = Steps(_team(config), plan)
    team = steps.untrained()
    plan.round = 1
    taught = _played(config, steps, team, "train", config.training_tasks)
    shown = {"credit": reading, "topology": config.topology, "repeats": config.repeats}
    head = leaf.options("credit", reading).by == "head"
    shuffle = {"shuffle": seed_of(config.seed, "shuffled") >> 1} if config.shuffle_labels else {}
    labels = {"labels": config.labels.model_dump(), "base_model": steps.model, **shuffle}
    rows = plan.add(stages.STEP_LABELS, taught, **labels, **shown)
    trained = plan.add(
        stages.TRAIN,
        {"batch": rows},
        agent=AGENT,
        base_model=steps.model,
        objective={"name": "process" if head else "sft"},
        training=config.training.model_dump(mode="json"),
        seed=seed_of(config.seed, "training", AGENT) >> 1,
    )
    plan.round = 0
    held_out = _played(config, steps, team, "validation", config.held_out_tasks)
    plays = (held_out["tasks"], held_out["rollout"], held_out["grade"])
    scored = {
        "rated": steps.replay(*plays, reading, reward_model=trained),
        "untrained": steps.replay(*plays, by_word(reading)),
    }
    appraisal = plan.add(stages.APPRAISE, {**held_out, **scored}, theta=config.labels.theta, **shown)
    return {"reward_model": trained, "appraisal": appraisal}


def _team(config: Config) -> PostTrain:
    """The team as `post_train` would have it, for the steps that both are made of."""
    same = ("model", "tasks", "verifier", "topology", "team", "engine", "seed", "training")
    given = {name: getattr(config, name) for name in same}
    return PostTrain(**given, sampling=config.sampling, credit={"name": "monte_carlo", "repeats": config.repeats})


def _played(config: Config, steps: Steps, team: Node, split: str, count: int) -> dict[str, Node | Shards]:
    """Plays of a split, graded, and gone on with from each of their steps: inputs of what follows."""
    tasks = steps.tasks(split)
    plan = {"name": "independent", "samples": config.plays}
    played = steps.play(tasks, team, f"{split}/steps", 0, count, config.shards, plan, config.sampling)
    judged = steps.grade(tasks, played)
    replays = steps.replay(tasks, played, judged)
    return {"tasks": tasks, "rollout": played, "grade": judged, "replay": replays}
