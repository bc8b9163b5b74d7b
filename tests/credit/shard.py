"""One shard through the stages: tasks, a team, its plays, verdicts, and what a credit method asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from apps import policies
from apps.credit import app
from apps.inference import app as inference_app
from apps.reward import app as reward_app
from apps.tasks import app as tasks_app
from tests import models

STAGES = {
    "tasks": tasks_app.tasks,
    "policies": policies.base,
    "rollout": inference_app.rollout,
    "grade": reward_app.grade,
    "replay": app.replay,
    "calibration": app.calibrate,
}


def options(tasks: int, samples: int, engine: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Of all stages: `samples` independent plays of each of `tasks` tasks by scripted agents."""
    return {
        "tasks": {"name": "arithmetic", "levels": [2], "train": max(8, 2 * tasks)},
        "verifier": {"name": "exact_number"},
        "topology": {"name": "solve_critique_revise"},
        "prompts": models.PROMPTS,
        "engine": {"name": "scripted", **engine},
        "model": "",
        "sampling": {"temperature": 1.0},
        "plan": {"name": "independent", "samples": samples},
        "take": {"seed": "s", "start": 0, "count": tasks},
        "seed": "s",
        "split": "train",
        "agents": list(models.PROMPTS),
        **more,
    }


def played(root: Path, given: dict[str, Any], last: str = "replay") -> tuple[dict[str, list[Path]], dict[str, Any]]:
    """The stages up to `last`: their folders, as inputs of later ones, and what each said of its work."""
    inputs: dict[str, list[Path]] = {}
    facts: dict[str, Any] = {}
    for name in list(STAGES)[: list(STAGES).index(last) + 1]:
        (root / name).mkdir()
        facts[name] = STAGES[name](root / name, inputs, given)
        inputs[name] = [root / name]
    return inputs, facts
