"""The evaluation stages: `measure` turns graded plays into figures, `promote` decides who plays on."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from apps import leaf, policies
from apps.evaluation import promotion
from apps.evaluation.figures import figures
from apps.inference import traces
from apps.reward import verdicts

FILE = "scores.json"


def measure(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """Writes `scores.json`: the figures of a team on a set of tasks, and every task's scores for paired tests."""
    graded = []
    for played, judged in zip(inputs["rollout"], inputs["grade"], strict=True):
        graded += verdicts.read(judged, traces.read(played / traces.FILE))
    duties = leaf.find("topologies", options["topology"]["name"]).DUTIES
    scores = figures(graded, duties)
    (out / FILE).write_text(json.dumps(scores, indent=1, default=float) + "\n")
    return {"accuracy": scores["accuracy"]["value"], "single": scores["single"]["value"], "n": scores["n"]}


def promote(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """The team that plays on: the candidate where the paired test on the same tasks allows it, else the incumbent.

    `agents` are those whose adapters the candidate brings; the decision is told with their names.
    """
    before, after = (read(inputs[name][0]) for name in ("scores", "candidate_scores"))
    decision = promotion.decide(
        matrix(before), matrix(after), options["promotion"]["rule"], options["promotion"]["alpha"]
    )
    policies.adopt(out, inputs["candidate" if decision.promoted else "policies"][0])
    kept = after if decision.promoted else before
    (out / FILE).write_text(json.dumps(kept) + "\n")
    return {**dataclasses.asdict(decision), "agents": list(options["agents"])}


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / FILE).read_text())


def matrix(scores: Mapping[str, Any], key: str = "scores") -> np.ndarray:
    """Scores (tasks, samples), tasks in the order of their ids."""
    return np.array([scores[key][task] for task in sorted(scores[key])], np.float64)
