"""Every recipe can be planned as it stands, and says what was published and what is different."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.command import run
from workflows import config, post_train
from workflows.plan import Plan

FILES = sorted(Path(post_train.__file__).parent.glob("configs/*.yaml"))
FILES = [file for file in FILES if "base" not in config.read_yaml(file)]  # the others are manifests of several runs
PLACEHOLDERS = {"gsm8k": ["model=embedded", "tasks={name: arithmetic}"]}  # what a user has to have


def words(file: Path) -> list[str]:
    return PLACEHOLDERS.get(file.stem, [])


def test_the_recipes_are_there():
    wanted = {"malt", "deepseek_r1", "instruct_gpt", "star", "iterative_dpo", "at_grpo", "reward_and_blame"}
    assert wanted <= {file.stem for file in FILES}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_recipe_is_planned_and_told(file):
    plan = Plan()
    found = post_train.dag(config.load(config.PostTrain, file, words(file)), plan)
    assert found["report"].key in plan.nodes and any(node.stage.name == "train" for node in plan.nodes.values())
    text = file.read_text(encoding="utf-8")
    assert f"--config workflows/configs/{file.name}" in text
    if file.stem not in PLACEHOLDERS:
        assert "Published: " in text and "Different here: " in text


def test_the_command_plans_a_recipe_and_runs_nothing(tmp_path):
    """The chain of four kinds of stages, through the command itself."""
    file = next(file for file in FILES if file.stem == "instruct_gpt")
    told = run(tmp_path, "--config", str(file), "--dry-run")
    assert told.returncode == 0, told.stderr
    counts = {
        line.split()[0]: int(line.split()[1])
        for line in told.stdout.splitlines()
        if len(line.split()) == 3 and line.split()[1].isdigit()
    }
    assert counts["conversations"] == counts["merge"] == counts["pairs"] - 1 == 1 and counts["values"] >= 4
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["instruct_gpt", "malt"])
def test_a_recipe_runs_at_a_tiny_size(tmp_path, name):
    """Every stage of it for real, with few tasks: what each hands on is what the next one can take."""
    import json

    small = "evaluation={tasks: 8, samples: 1, validation_tasks: 6, validation_samples: 1, shards: 1, shown_tasks: 2}"
    settings = config.read_yaml(next(file for file in FILES if file.stem == name))
    tiny = {"rounds": 1, "training_tasks": 12, "held_out_tasks": 12, "data": {"examples": 20}}
    kept = {"reward_model": ("training_tasks", "held_out_tasks"), "sft": ("data",)}
    stages = [
        {**stage, **{key: tiny[key] for key in kept.get(stage["name"], ("rounds",))}} for stage in settings["stages"]
    ]
    file = next(file for file in FILES if file.stem == name)
    done = run(
        tmp_path, "--config", str(file), small, "rollout.tasks=4", "rollout.shards=1", f"stages={json.dumps(stages)}"
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "runs" / name / "summary.json").read_text())
    assert [row["stage"] for row in summary["stages"]] == [stage["name"] for stage in stages]
    assert all(row["value"] is not None for row in summary["stages"])
