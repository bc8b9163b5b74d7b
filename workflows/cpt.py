"""Continued pretraining on documents: a whole model that knows a new domain and has not forgotten what it knew.

    python workflows/run.py cpt model=FOLDER data.law.path=law.jsonl general.web.path=web/ terms=terms.txt

Waves of training, each on a mixture of new and general documents; after each, the gate keeps it or takes it back. New words
and a longer context are given to the model first. It is `runs/cpt/model`, for `model=` or as what a chain goes on from.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import Field

from apps import leaf, records, stages
from apps.data.domains import Domain
from apps.data.gate import Options as Gate
from apps.data.mixture import Options as Mixture
from apps.data.position_scaling import Options as Positions
from apps.data.waves import AGENT
from apps.inference.driver import seed_of
from apps.records import MeritError
from apps.topologies import solve_critique_revise
from apps.training.options import Options as Training
from workflows import chain, model
from workflows.chain import Standing, Story
from workflows.config import Run, Section
from workflows.plan import Node, Plan
from workflows.steps import Steps

__all__ = ["Config", "dag", "stage"]

EMBEDDED = ({"careful": Domain(kind="careful")}, {"plain": Domain(kind="plain"), "habits": Domain(kind="habits")})


class WarmUp(records.Options):
    """Waves that show documents with new words more often."""

    waves: int = Field(1, ge=0, description="the first so many; where there are no new words, none is warmed up")
    times: int = Field(3, ge=1, description="how often such a row is drawn in a pass, others once")


class Config(Run):
    """The configuration of `cpt`."""

    model: str = Field("embedded", description="a local Hugging Face folder, or the model that comes with Merit")
    data: dict[str, Domain] = Field(
        {}, description="new domains by name, as data.law.path=FILE; none: the embedded task's"
    )
    general: dict[str, Domain] = Field({}, description="domains that are replayed, so that they are not forgotten")
    held_out: float = Field(0.05, gt=0, lt=1, description="share of each domain that is measured and not learnt")
    held_out_most: int = Field(200, ge=1, description="documents that are held out of a domain at most")
    context: int = Field(0, ge=0, description="tokens a row at most; 0: the model's context")
    positions: Positions = Positions()
    terms: str = Field("", description="a file with a term a line that is to become one token")
    warm_up: WarmUp = WarmUp()
    waves: int = Field(
        3, ge=0, description="stretches of training, each followed by the gate; 0: `terms`, `positions` alone"
    )
    steps: int = Field(20, ge=1, description="optimiser steps of a wave")
    mixture: Mixture = Mixture()
    gate: Gate = Gate()
    objective: Section = Field({"name": "next_token"}, description="the loss; objective.kl=0.1 keeps near to the base")
    training: Training = Training(lora=None, lr=1e-4, schedule="cosine", warmup=5, floor=0.1, step_rows=32)


def dag(config: Config, plan: Plan) -> dict[str, Node]:
    """Adds the course from the configured model on; each wave is a round to the display."""
    base = {"base_model": model.identity(config.model)}
    begun = lambda wave: setattr(plan, "round", wave)  # noqa: E731
    return course(config, plan.add, begun, embedded=config.model == "embedded", **base)


def stage(config: Config, steps: Steps, standing: Standing, story: Story) -> Standing:
    """The same in a chain: the team, untrained as yet, has another base model from here on."""
    chain.check_weights(steps)
    if standing.team is not steps.untrained():
        raise MeritError(
            "cpt makes another base model, and the team's policies were trained on the one before it; put cpt first"
        )
    begins = {"start": standing.base} if standing.base else {"base_model": steps.model}
    made = course(config, steps.add, embedded=config.model == "embedded", **begins)
    return chain.rebased(steps, standing, made["model"])


def course(
    config: Config,
    add: Callable[..., Node],
    begun: Callable[[int], None] = lambda wave: None,
    start: Node | None = None,
    embedded: bool = True,
    **base: str,
) -> dict[str, Node]:
    """The waves, from the whole model of `start` where a chain made one: `model` and `summary`. `begun` is told each wave."""
    new, general = domains(config, embedded)
    check(config)
    changes = {"positions": config.positions.model_dump(), "terms": model.fingerprint(config.terms, "terms")}
    first = add(stages.EXTEND, {"start": start} if start else {}, **changes, **base)
    rows = add(stages.DOCUMENTS, {"start": first}, **_documents(config, {**new, **general}, list(general)))
    measured = {"training": config.training.model_dump(mode="json")}
    unchanged = add(stages.LIKELIHOOD, {"start": first, "batch": rows}, **measured)
    teacher = {"teacher": first} if config.objective.get("kl") else {}
    good, known = first, {"base": unchanged}
    mixes: list[Node] = []
    gates: list[Node] = []
    for wave in range(1, config.waves + 1):
        begun(wave)
        mixed = add(stages.MIX, {**known, "documents": rows, "start": first}, **_mix(config, wave, list(general)))
        trained = add(stages.TRAIN, {"batch": mixed, "start": good, **teacher}, **_training(config, wave))
        losses = add(stages.LIKELIHOOD, {"train": trained, "batch": rows}, **measured)
        judged = {**known, "mix": mixed, "train": trained, "good": good, "likelihood": losses}
        good = add(stages.GATE, judged, **_gate(config, wave, list(general)))
        known = {"base": unchanged, "gate": good}
        mixes.append(mixed)
        gates.append(good)
    begun(0)
    after = add(stages.LIKELIHOOD, {"train": good, "batch": rows}, **measured)
    shown = {"data": rows, "extend": first, "before": unchanged, "after": after, "mix": mixes, "gate": gates}
    return {"model": good, "summary": add(stages.LOSSES, shown, name=config.name)}


def domains(config: Config, embedded: bool) -> tuple[dict[str, Domain], dict[str, Domain]]:
    """(new, general), the embedded task's own where none are given; MeritError where that makes no sense."""
    if not config.data and not embedded:
        raise MeritError(
            "continued pretraining wants documents: data.NAME.path=FILE, and what is replayed, general.NAME.path=FILE"
        )
    new, general = (
        (dict(config.data), dict(config.general)) if config.data else (EMBEDDED[0], config.general or EMBEDDED[1])
    )
    for name, domain in {**new, **general}.items():
        if bool(domain.path) == bool(domain.kind):
            raise MeritError(
                f"the domain {name!r} wants either a path or a kind; given {domain.path!r} and {domain.kind!r}"
            )
    for setting in ("weights", "reference"):
        for name in getattr(config.mixture, setting):
            if name not in {**new, **general}:
                raise MeritError(leaf.unknown(f"mixture.{setting}: domain", name, [*new, *general]))
    if both := set(new) & set(general):
        raise MeritError(f"{min(both)!r} is a new and a general domain; give the two different names")
    return new, general


def check(config: Config) -> None:
    """MeritError for settings that a course of waves cannot have."""
    if config.training.epochs != 1:
        raise MeritError(
            f"training.epochs={config.training.epochs}: a wave is gone through once; its length is steps={config.steps}"
        )
    if config.training.lora is not None:
        raise MeritError(
            "continued pretraining trains all weights; give training.lora=null, or take `sft` for an adapter"
        )


def _documents(config: Config, found: dict[str, Domain], general: list[str]) -> dict[str, Any]:
    files = {n: model.fingerprint(d.path, n) for n, d in found.items()}
    sections = {n: {**d.model_dump(exclude={"path"}), "file": files[n]} for n, d in found.items()}
    same = {name: getattr(config, name) for name in ("held_out", "held_out_most", "context", "seed")}
    prompts = dict(solve_critique_revise.PROMPTS) if any(d.kind for d in found.values()) else {}
    return {"domains": sections, "general": general, "prompts": prompts, **same}


def _mix(config: Config, wave: int, general: list[str]) -> dict[str, Any]:
    warm = {"warm_up": config.warm_up.waves, "oversample": config.warm_up.times} if config.terms else {"warm_up": 0}
    size = {"step_rows": config.training.step_rows, "steps": config.steps, "waves": config.waves, "wave": wave}
    return {"mixture": config.mixture.model_dump(), "general": general, "seed": config.seed, **size, **warm}


def _training(config: Config, wave: int) -> dict[str, Any]:
    seed = seed_of(config.seed, "training", wave, AGENT) >> 1
    training = config.training.model_dump(mode="json")
    return {"agent": AGENT, "objective": config.objective, "training": training, "seed": seed, "keep_state": True}


def _gate(config: Config, wave: int, general: list[str]) -> dict[str, Any]:
    settings = {"gate": config.gate.model_dump(), "reference": config.mixture.reference, "general": general}
    return {**settings, "last": wave == config.waves}
