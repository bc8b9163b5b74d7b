"""Trains a reward model on preferences and says how good it is: an adapter with a scalar head that scores completions.

A team plays; of what an agent said to one prompt a right answer and a wrong one make a pair (`labels=verified`), or a judge says
by a written constitution which is better (`labels=judge`), or a file brings pairs (`labels=file`). The training stage that agents
are trained by makes the adapter, or several for an ensemble; held-out pairs say how well it orders them. It is
`runs/reward_model/adapter`, for `credit.name=reward_model` and `verifier.name=reward_model`. Rewards of steps: `process_reward`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from pydantic import Field

from apps import leaf, scoring, stages
from apps.inference.driver import seed_of
from apps.preference.judge import Options as Judge
from apps.preference.judge import read_principles
from apps.preference.pairs import Options as Pairs
from apps.records import MeritError
from apps.reward_model.app import AGENT
from apps.training.options import Options as Training
from workflows import model
from workflows.chain import Standing, Story
from workflows.config import Played, PostTrain, Section
from workflows.plan import Node, Plan
from workflows.steps import Steps

__all__ = ["Config", "dag", "stage"]


class Config(Played):
    """The configuration of `reward_model`; the team's sections are those of `post_train`."""

    topology: Section = Field({"name": "single"}, description="how the team works together")
    labels: Literal["verified", "judge", "file"] = Field("verified", description="who says which of two is better")
    file: str = Field(
        "", description="labels=file: JSONL of prompt, chosen, rejected; a fifth of its prompts is held out"
    )
    check: str = Field(
        "", description="such a file, of labels by people, to measure by; default: held-out verified pairs"
    )
    judge: Judge = Field(Judge(), description="labels=judge: who judges, and by which constitution")
    pairs: Pairs = Field(Pairs(), description="which completions are put side by side")
    plays: int = Field(8, ge=2, description="plays of each task")
    training_tasks: int = Field(240, ge=1, description="tasks of the train split that pairs are made of")
    held_out_tasks: int = Field(120, ge=1, description="tasks of the validation split that it is measured on")
    shards: int = Field(2, ge=1, description="tasks of the DAG that the plays are split into")
    shuffle_labels: bool = Field(False, description="control experiment: training pairs are labelled by a coin")
    objective: Section = Field({"name": "bradley_terry"}, description="bradley_terry, or outcome")
    members: int = Field(1, ge=1, description="reward models that are trained; more than one are an ensemble")
    reading: scoring.Options = Field(
        scoring.Options(by="word"), description="how the untrained model beside it is asked"
    )
    training: Training = Training(epochs=3, step_rows=32)


def dag(config: Config, plan: Plan) -> dict[str, Node]:
    """Adds pairs, training and appraisal."""
    steps = Steps(_team(config), plan)
    members, appraisal = trained(config, steps, steps.untrained())
    names = [f"reward_model/{number}" for number in range(1, len(members) + 1)]
    return {**dict(zip(names, members, strict=True)), "appraisal": appraisal}


def stage(config: Config, steps: Steps, standing: Standing, story: Story) -> Standing:
    """A stage of a chain: the team as it stands plays, and what follows can ask the reward model."""
    members, _ = trained(config, steps, standing.team)
    return replace(standing, reward_model=tuple(members))


def trained(config: Config, steps: Steps, team: Node) -> tuple[list[Node], Node]:
    """The members, and their appraisal."""
    _check(config)
    steps.plan.round += 1
    learnt = labelled = _pairs(config, steps, team, "train")
    if config.labels == "judge":
        labelled = _judged(config, steps, learnt)
    rows = steps.add(
        stages.REWARD_ROWS,
        {"pairs": labelled, **steps.start},
        objective=config.objective,
        least=config.judge.least,
        base_model=steps.model,
    )
    members = [_member(config, steps, rows, number) for number in range(config.members)]
    held = _pairs(config, steps, team, "validation")
    compared = {}
    if config.labels == "judge":
        compared["agreement"] = steps.add(stages.AGREEMENT, {"prefer": _judged(config, steps, held), "pairs": held})
    reading = model.keyed(config.reading.model_dump(mode="json"), "reading")
    inputs = {"pairs": held, "train": members, **compared, **steps.start}
    return members, steps.add(stages.APPRAISE_PAIRS, inputs, reading=reading, **_asking(config, steps))


def _member(config: Config, steps: Steps, rows: Node, number: int) -> Node:
    return steps.add(
        stages.TRAIN,
        {"batch": rows, **steps.start},
        agent=AGENT,
        base_model=steps.model,
        objective=config.objective,
        training=config.training.model_dump(mode="json"),
        seed=seed_of(config.seed, "training", AGENT, number) >> 1,
    )


def _pairs(config: Config, steps: Steps, team: Node, split: str) -> Node:
    """Pairs to learn from (`train`) or to be measured by (`validation`); for a judge, the first are without a label."""
    held = split == "validation"
    shuffle = {"shuffle": f"{config.seed}/shuffled"} if config.shuffle_labels and not held else {}
    if file := (held and config.check) or (config.labels == "file" and config.file):
        side = "all" if file == config.check else "held_out" if held else "train"
        data = model.fingerprint(file, "check" if file == config.check else "file")
        return steps.add(stages.PAIRS, {}, file=file, data=data, side=side, **shuffle)
    count, plan = (
        config.held_out_tasks if held else config.training_tasks,
        {"name": "independent", "samples": config.plays},
    )
    tasks = steps.tasks(split)
    played = steps.play(tasks, team, f"{split}/pairs", 0, count, config.shards, plan, config.sampling)
    inputs = {"tasks": tasks, "rollout": played, "grade": steps.grade(tasks, played)}
    labelled = held or config.labels == "verified"
    return steps.add(stages.PAIRS, inputs, pairs=config.pairs.model_dump(mode="json"), labelled=labelled, **shuffle)


def _judged(config: Config, steps: Steps, pairs: Node) -> Node:
    """The pairs with a judge's labels; the principles themselves stand in the key, not where they lie."""
    principles = read_principles(config.judge.constitution)
    section = model.keyed({**config.judge.model_dump(mode="json"), "constitution": ""}, "judge")
    shuffle = f"{config.seed}/shuffled" if config.shuffle_labels else None
    return steps.add(
        stages.PREFER,
        {"pairs": pairs, **steps.start},
        judge=section,
        principles=principles,
        shuffle=shuffle,
        **_asking(config, steps),
    )


def _asking(config: Config, steps: Steps) -> dict[str, Any]:
    return {"engine": config.engine, "base_model": steps.model, "seed": f"{config.seed}/preference"}


def _check(config: Config) -> None:
    if config.engine["name"] == "scripted" or config.training.lora is None:
        raise MeritError(
            "reward_model trains an adapter on a model: engine.name=transformers and a training.lora are expected; "
            f"given engine.name={config.engine['name']}, training.lora={config.training.lora}"
        )
    if (
        "scores" not in leaf.find("training/objectives", config.objective["name"]).NEEDS
        or config.objective["name"] == "process"
    ):
        raise MeritError(
            f"objective.name={config.objective['name']}: a reward model of whole completions learns by bradley_terry or "
            "outcome; one of steps (process) is made by the workflow process_reward"
        )
    if (config.labels == "file") != bool(config.file):
        raise MeritError(
            f"labels=file and file=PATH go together; given labels={config.labels}, file={config.file or 'none'}"
        )
    if config.reading.by == "head":
        raise MeritError("reading.by=head: an untrained model has no scalar head; word or reply is expected")


def _team(config: Config) -> PostTrain:
    """The team as `post_train` would have it, for the steps that both are made of."""
    same = ("model", "tasks", "verifier", "topology", "team", "engine", "sampling", "seed", "training")
    return PostTrain(**{name: getattr(config, name) for name in same}, credit={"name": "uniform"})
