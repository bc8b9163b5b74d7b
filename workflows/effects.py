"""Does every method do something? Each against its own ablation at equal budget on the embedded task, as one DAG.

`effects.yaml` lists the methods: what a run with it has, what the run without it has instead, and the figure that it is to move.
All arms of a seed start from the same plays of the same tasks, which are played once.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field

from apps import leaf, records, stages
from apps.records import MeritError
from workflows.config import Run, Section, defaults, overlay, validated
from workflows.plan import Node, Plan

__all__ = ["Config", "dag"]

METHODS = Path(__file__).with_suffix(".yaml")


class Method(records.Options):
    """A row of the table."""

    name: str = Field(description="as in the configuration", pattern=r"^\w[\w.-]*$")
    kind: str = Field(description="the heading that it stands under")
    workflow: str = Field("post_train", description="which both arms run")
    common: dict[str, Any] = Field({}, description="settings of both arms")
    given: dict[str, Any] = Field({}, alias="with", description="settings of the run with it, on top")
    ablated: dict[str, Any] = Field(
        {"shuffle_credit": True}, alias="without", description="settings of the run without it"
    )
    against: str = Field("shuffled credit", description="the ablation in words")
    figure: str = Field("team sampled", description="the measure in words")
    node: str = Field("report", description="whose artifact has the figure")
    file: str = Field("summary.json", description="in which of its files")
    path: tuple[str | int, ...] = Field(("accuracy", "sampled", "after", "value"), description="where in the file")
    wanted: Literal["higher", "lower"] = Field("higher", description="what the method is for")


class Config(Run):
    """The configuration of `effects`."""

    model: str = Field("embedded", description="a local Hugging Face folder, or the model that comes with Merit")
    seeds: tuple[int, ...] = Field((0, 1), description="seeds that every arm is run with")
    only: tuple[str, ...] = Field((), description="names of methods, or of kinds; none: all")
    methods: str = Field("", description="a YAML file of methods; default: effects.yaml beside the workflow")
    base: Section = Field({}, description="settings of all post_train arms, over those of the file")


def dag(config: Config, plan: Plan) -> dict[str, Node]:
    """Adds both arms of every method for every seed, and the table over them."""
    shared, methods = read(Path(config.methods) if config.methods else METHODS)
    chosen = selected(methods, config.only)
    arms: dict[str, list[Node]] = {}
    for method in chosen:
        for arm in ("given", "ablated"):
            settings = overlay(overlay(shared.get(method.workflow, {}), config.base), method.common)
            settings = overlay(settings, getattr(method, arm))
            arms[f"{arm}/{method.kind}/{method.name}"] = [
                _run(config, plan, method, settings, seed) for seed in config.seeds
            ]
    rows = [
        method.model_dump(include={"name", "kind", "against", "figure", "file", "path", "wanted"}) for method in chosen
    ]
    return {"effects": plan.add(stages.EFFECTS, arms, rows=rows, seeds=list(config.seeds))}


def read(file: Path) -> tuple[Mapping[str, Section], list[Method]]:
    """The settings that arms share, by workflow, and the methods."""
    given = yaml.safe_load(file.read_text(encoding="utf-8"))
    return given["shared"], [Method(**row) for row in given["methods"]]


def selected(methods: list[Method], only: tuple[str, ...]) -> list[Method]:
    known = [method.name for method in methods] + sorted({method.kind for method in methods})
    for name in only:
        if name not in known:
            raise MeritError(leaf.unknown("only: method", name, known))
    return [method for method in methods if not only or {method.name, method.kind} & set(only)]


def _run(config: Config, plan: Plan, method: Method, settings: Section, seed: int) -> Node:
    workflow = importlib.import_module(f"workflows.{method.workflow}")
    given = {**overlay(defaults(workflow.Config), settings), "model": config.model, "seed": seed, "name": method.name}
    return workflow.dag(validated(workflow.Config, given, f"effects.yaml: {method.name}"), plan)[method.node]
