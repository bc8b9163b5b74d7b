"""What is the credit itself worth? The same run over seeds, and with uniform and with shuffled credit, as one DAG.

The first three arms differ in the credit alone: same tasks, rollouts a round, steps and random numbers. They compare turns
in the same state, where the plain outcome is a fair signal too. The other two play each task several times over, as most
systems do, and compare turns in different states: there the credit has to tell whose doing it was. What arms share, the
untrained team's evaluation for one, is computed once.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from apps import stages
from workflows import post_train
from workflows.config import PostTrain, overlay, validated
from workflows.plan import Node, Plan

__all__ = ["Config", "dag"]

INDEPENDENT = {"rollout": {"plan": "independent", "samples": 16}, "advantage": {"name": "grpo"}}


class Config(PostTrain):
    """The configuration of `claims`: that of `post_train`, with seeds and arms."""

    seeds: tuple[int, ...] = Field((0, 1, 2, 3, 4), description="seeds that every arm is run with")
    arms: dict[str, dict[str, Any]] = Field(
        {
            "shapley": {"credit": {"name": "shapley"}},
            "uniform": {"credit": {"name": "uniform"}},
            "shuffled": {"shuffle_credit": True},
            "shapley-independent": {"credit": {"name": "shapley"}, **INDEPENDENT},
            "uniform-independent": {"credit": {"name": "uniform"}, **INDEPENDENT},
        },
        description="name: what it changes in the configuration",
    )


def dag(config: Config, plan: Plan) -> dict[str, Node]:
    """Adds a whole run for each arm and seed, and the table over them."""
    base = {key: value for key, value in config.model_dump(mode="json").items() if key not in ("seeds", "arms")}
    reports: dict[str, list[Node]] = {arm: [] for arm in config.arms}
    for seed in config.seeds:
        for arm, changes in config.arms.items():
            given = {**overlay(base, changes), "seed": seed, "name": f"{arm}-{seed}"}
            settings = validated(PostTrain, given, f"arms.{arm}")
            reports[arm].append(post_train.dag(settings, plan)["report"])
    return {"claims": plan.add(stages.CLAIMS, reports, seeds=list(config.seeds))}
