"""Makes the embedded model: next-token training, role-format training with care, then bad habits in the majority.

It goes through the same training stage that users call. The finished folder, card included, is `runs/pretrain/model`; with
`export=FOLDER` it is copied there as well. `cpt.data.law.path=law.jsonl` goes on with documents, as the workflow `cpt` does
from any model.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from apps import records, stages
from apps.topologies import solve_critique_revise
from apps.training.options import Options as Training
from workflows import config as configuration
from workflows import cpt
from workflows.config import Run, Section
from workflows.plan import Node, Plan

__all__ = ["Config", "dag"]

CAREFUL_SHARE = 0.4


class Phase(records.Options):
    """One corpus, trained on once."""

    name: str = Field(description="plain, careful or habits")
    examples: int = Field(ge=1, description="size of its corpus")
    lr: float = Field(gt=0, description="peak learning rate, falling linearly to a twentieth")
    spelled: bool = Field(True, description="critics compare digit by digit; what they cannot learn at one go")
    slip: float = Field(0.0, ge=0, le=1, description="chance of a wrong total at a step of a careful solver")
    blind_slip: float = Field(0.0, ge=0, le=1, description="the same for a reviser that was told a bare verdict")


class Shape(records.Options):
    """The Llama."""

    hidden: int = 128
    intermediate: int = 384
    layers: int = 4
    heads: int = 4
    context: int = 512


class Config(Run):
    """The configuration of `pretrain`."""

    shape: Shape = Shape()
    phases: tuple[Phase, ...] = (
        Phase(name="plain", examples=8_000, lr=3e-3, spelled=False),
        Phase(name="careful", examples=110_000, lr=3e-3, slip=0.03, spelled=False),
        Phase(name="careful", examples=18_000, lr=2e-3, slip=0.03),
        Phase(name="habits", examples=32_000, lr=1.2e-3, slip=0.06, blind_slip=0.1),
    )
    step_rows: int = Field(32, ge=1, description="examples of an optimiser step")
    levels: tuple[int, ...] = Field((1, 2, 3, 4, 5), description="steps of the problems in the corpora")
    problems: int = Field(500, ge=1, description="problems a role that the model is assessed on")
    assessed_levels: tuple[int, ...] = Field((3, 4, 5), description="their steps")
    cpt: Section = Field(
        {}, description="continued pretraining of the finished model: settings of `cpt`; none: no more"
    )
    export: str = Field("", description="a folder that the finished model is copied to")


def dag(config: Config, plan: Plan) -> dict[str, Node]:
    """Adds the phases, each from where the last one ended, and the assessment before and after the habits."""
    prompts = solve_critique_revise.PROMPTS
    untrained = plan.add(
        stages.ARCHITECTURE, shape=config.shape.model_dump(), prompts={**prompts, "": ""}, seed=config.seed
    )
    models, corpora = [untrained], []
    for number, phase in enumerate(config.phases):
        plan.round = number + 1
        corpora.append(_corpus(config, plan, phase, untrained, prompts))
        models.append(
            plan.add(
                stages.TRAIN,
                {"start": models[-1], "batch": corpora[-1]},
                agent="model",
                objective={"name": "sft"},
                training=_training(config, phase).model_dump(mode="json"),
                seed=config.seed,
            )
        )
    plan.round = 0
    figures = {"problems": config.problems, "levels": list(config.assessed_levels), "prompts": prompts}
    assessed = [plan.add(stages.ASSESS, {"model": model}, **figures) for model in models[-2:]]
    card = plan.add(
        stages.CARD,
        {"architecture": untrained, "corpus": corpora, "train": models[1:], "assess": assessed, "model": models[-1]},
        phases=[phase.name for phase in config.phases],
        careful=CAREFUL_SHARE,
        slips=[phase.slip for phase in config.phases],
        problems=config.problems,
        levels=list(config.assessed_levels),
    )
    return continued(config, plan, card) if config.cpt else {"model": card}


def continued(config: Config, plan: Plan, made: Node) -> dict[str, Node]:
    """The finished model after a course on documents."""
    given = configuration.overlay(configuration.defaults(cpt.Config), config.cpt)
    settings = configuration.validated(cpt.Config, given | {"seed": config.seed, "name": config.name})
    return cpt.course(settings, plan.add, start=made)


def _corpus(config: Config, plan: Plan, phase: Phase, untrained: Node, prompts: dict[str, str]) -> Node:
    corpus: dict[str, Any] = {"kind": phase.name, "examples": phase.examples, "levels": list(config.levels)}
    corpus |= {
        "seed": config.seed,
        "spelled": phase.spelled,
        "slip": phase.slip,
        "blind_slip": phase.blind_slip,
        "careful": dict.fromkeys(prompts, CAREFUL_SHARE),
    }
    return plan.add(stages.CORPUS, {"architecture": untrained}, corpus=corpus, prompts=prompts)


def _training(config: Config, phase: Phase) -> Training:
    return Training(
        lora=None,
        lr=phase.lr,
        schedule="linear",
        warmup=50,
        floor=0.05,
        betas=(0.9, 0.98),
        weight_decay=0.01,
        step_rows=config.step_rows,
        micro_tokens=1500,  # little padding is worth more here than large products
        dtype="bfloat16",
    )
