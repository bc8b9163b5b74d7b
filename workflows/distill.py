"""Distillation: a pupil team learns from a teacher, by its traces or by its distributions. A run of its own, or a stage of one.

Black box: the teacher plays the training tasks; what a verifier finds right is told again in the pupil's words, and each agent is
fine-tuned on its own turns (sequence-level distillation, arXiv 1606.07947, of what a verifier kept). A teacher may be another
model, have other prompts and another vocabulary. White box: with `objective.name=distill` the pupil's distributions are
brought near to the teacher's at every token of those turns, or with `teacher.speaks=false` of the pupil's own (on-policy:
GKD, arXiv 2306.13649).

Where no teacher is named, it is the team that earlier stages left. A run of its own without a teacher first makes one: a few
rounds of post-training, whose team then teaches an untrained one.
"""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field

from apps import leaf, records
from apps.records import MeritError
from workflows import chain, post_train
from workflows.chain import IMITATION, Standing, Story
from workflows.config import PostTrain, Promotion, Rollout, Section, TeamSettings, defaults, validated
from workflows.plan import Node, Plan
from workflows.steps import Shards, Steps

__all__ = ["Config", "dag"]

# settings that post-training has its own of, where it makes the teacher
MAKING = ("objective", "credit", "advantage", "rollout", "promotion")


class Teacher(records.Options):
    """Who teaches; nothing set: the team as earlier stages left it."""

    model: str = Field("", description="its base model, a local Hugging Face folder; default: the run's")
    adapters: str = Field("", description="a folder with an adapter for each agent (runs/NAME/adapters); default: none")
    prompts: dict[str, str] = Field({}, description="role: its template, or @FILE; default: the pupil's")
    system: str = Field("", description="its system message; default: the pupil's")
    speaks: bool = Field(
        True, description="it plays the training tasks; false: the pupil does, and is corrected token by token"
    )


class Config(PostTrain):
    """The configuration of `distill`: that of `post_train`, with a teacher, and set to imitate it."""

    teacher: Teacher = Teacher()
    untrained: bool = Field(
        True, description="the pupil is the untrained team; false: the one that earlier stages left"
    )
    made_in: int = Field(3, ge=1, description="rounds that make a teacher where none is named and no stage came before")
    rounds: int = Field(1, ge=0, description="rounds of teaching")
    rollout: Rollout = Rollout(tasks=64, plan="independent", samples=4)
    credit: Section = IMITATION["credit"]
    advantage: Section = IMITATION["advantage"]
    objective: Section = IMITATION["objective"]
    promotion: Promotion = Promotion(rule="always")


def dag(config: Config, plan: Plan) -> dict[str, Node]:
    """Adds the whole run: the stages that are to come before, perhaps one that makes a teacher, then this one."""
    given = config.model_dump(mode="json")
    mine = {key: given.pop(key) for key in ("teacher", "untrained", "made_in")}
    before = list(given["stages"])
    if not before and not _named(config.teacher):
        usual = defaults(PostTrain)
        before = [{"name": chain.WHOLE, "rounds": config.made_in, **{key: usual[key] for key in MAKING}}]
    lesson = {"name": "distill", **mine, "rounds": config.rounds, **{key: given[key] for key in MAKING}}
    return post_train.dag(validated(PostTrain, given | {"stages": [*before, lesson]}), plan)


def stage(config: Config, steps: Steps, standing: Standing, story: Story) -> Standing:
    """Adds the rounds of teaching, numbered on from those of the last stage."""
    if not steps.trains:
        raise MeritError(
            "scripted agents have nothing to train; distil into a real engine's (engine.name=transformers)"
        )
    teacher = _team(config, steps, standing)
    training = steps.tasks("train")
    team = steps.untrained() if config.untrained else standing.team
    scores = steps.validate(team)
    for _ in range(config.rounds):
        steps.plan.round += 1
        speaker = teacher if config.teacher.speaks else team
        played, judged = _plays(config, steps, standing, training, speaker, team)
        credit = steps.assign(training, played, judged, steps.replay(training, played, judged))
        story.tell(rollout=played, grade=judged, assign=credit)
        trained = steps.train(speaker, team, played, judged, credit, steps.owners, teacher=teacher)
        team, scores = post_train.tried(steps, story, team, scores, trained)
    return replace(standing, team=team, scores=scores)


def _named(teacher: Teacher) -> bool:
    return bool(teacher.model or teacher.adapters or teacher.prompts or teacher.system)


def _team(config: Config, steps: Steps, standing: Standing) -> Node:
    """The teacher's policies."""
    given, of = config.teacher, _steps(config, steps, standing)
    _check(config, of)
    if given.adapters:
        return of.adopted(given.adapters, "teacher.adapters")
    return of.untrained() if _named(given) else standing.team


def _steps(config: Config, steps: Steps, standing: Standing) -> Steps:
    """The steps of the teacher's own plays: its model, its prompts."""
    given, pupil = config.teacher, config.team
    models = dict.fromkeys(steps.agents, given.model) if given.model else pupil.models
    team = TeamSettings(
        system=given.system or pupil.system,
        prompts={**pupil.prompts, **given.prompts},
        share={} if given.model or given.adapters else pupil.share,
        models=models,
    )
    return steps.onward(standing, config.model_copy(update={"team": team}))


def _check(config: Config, teacher: Steps) -> None:
    """MeritError where what is asked of the teacher cannot be had."""
    module = leaf.find("training/objectives", config.objective["name"])
    if "old" in module.NEEDS and config.teacher.speaks:
        raise MeritError(
            f"objective.name={config.objective['name']} compares the policy with who sampled, and here the teacher did; take "
            "objective.name=sft or distill, or teacher.speaks=false"
        )
    if "teacher" not in module.NEEDS and not config.teacher.speaks:
        raise MeritError(
            f"teacher.speaks=false with objective.name={config.objective['name']} would learn nothing of the teacher; take "
            "objective.name=distill, which reads its distributions"
        )


def _plays(
    config: Config, steps: Steps, standing: Standing, training: Node, speaker: Node, pupil: Node
) -> tuple[Shards, Shards]:
    """Plays of the round and their verdicts; a teacher's in the pupil's words where its own differ."""
    if not config.teacher.speaks:
        return steps.rollout(training, speaker)
    played, judged = _steps(config, steps, standing).rollout(training, speaker)
    if not (config.teacher.model or config.teacher.prompts or config.teacher.system):
        return played, judged
    told = steps.retell(training, played, pupil)
    return told, steps.grade(training, told)
