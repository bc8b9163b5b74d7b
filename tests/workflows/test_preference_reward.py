"""The workflow `reward_model`, whole, with a tiny model; then the reward model that it made as credit and as verifier."""

from __future__ import annotations

import json

import pytest

from apps.records import MeritError
from tests import command, models
from workflows import post_train, reward_model
from workflows.config import PostTrain, validated
from workflows.plan import Plan

TASKS = "tasks={name: arithmetic, levels: [2], train: 12, validation: 8, test: 4}"
SMALL = (
    TASKS,
    "training_tasks=6",
    "held_out_tasks=5",
    "plays=4",
    "sampling={max_new_tokens: 6}",
    "training={epochs: 1, lora: {r: 2, alpha: 4}}",
)
ROWS = [
    {"prompt": f"Solve: {n} + {n}?", "chosen": f"ANSWER: {2 * n}", "rejected": f"ANSWER: {2 * n + k}"}
    for n in range(12)
    for k in (1, 2)
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(folder of two runs, the model): an ensemble that learnt from a file, and one by a judge's labels, checked on the file."""
    folder = tmp_path_factory.mktemp("reward")
    tiny = models.make_model(folder / "tiny", context=512)
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    common = ("reward_model", "--site-option", "cores=1", f"model={tiny}", *SMALL)
    by_file = command.run(folder, *common, "labels=file", "file=pairs.jsonl", "members=2", "name=by_file")
    assert by_file.returncode == 0, by_file.stderr
    judge = "judge={prompt: 'Check: {question} Solution: {text}'}"
    by_judge = command.run(
        folder, *common, "labels=judge", judge, "check=pairs.jsonl", "objective.name=outcome", "name=by_judge"
    )
    assert by_judge.returncode == 0, by_judge.stderr
    return folder, tiny, (by_file.stdout, by_judge.stdout)


def summary(folder, name):
    return json.loads((folder / "runs" / name / "summary.json").read_text())


@pytest.mark.slow
def test_an_ensemble_is_a_folder_of_reward_models(made):
    folder, _, (printed, _) = made
    members = folder / "runs" / "by_file" / "adapter"
    weights = [(members / n / "adapter_model.safetensors").read_bytes() for n in "12"]
    assert weights[0] != weights[1]
    assert all((members / n / "scalar_head.safetensors").is_file() for n in "12")
    told = summary(folder, "by_file")["scores"]
    assert {"reward model", "worst of the ensemble", "first member alone", "untrained, by word"} < set(told)
    assert 0 < told["reward model"]["pairs"] < len(ROWS) and told["reward model"]["spread"] > 0
    assert "pairs ordered right" in printed and "worst of the ensemble" in printed


@pytest.mark.slow
def test_a_judges_labels_are_checked_on_the_given_file(made):
    folder, _, (_, printed) = made
    told = summary(folder, "by_judge")
    assert told["agreement"]["pairs"] == len(ROWS) == told["scores"]["reward model"]["pairs"]
    assert 0 <= told["agreement"]["agreement"]["low"] <= told["agreement"]["agreement"]["high"] <= 1
    assert told["agreement"]["kappa"]["value"] is not None and "same_in_both_orders" not in told["agreement"]
    assert "Cohen's kappa" in printed


@pytest.mark.slow
def test_credit_and_verdicts_from_the_ensemble(made, tmp_path):
    folder, tiny, _ = made
    adapter = folder / "runs" / "by_file" / "adapter"
    words = [f"model={tiny}", f"store={folder / 'store'}", TASKS, "sampling={max_new_tokens: 6}", "rounds=0"]
    words += ["rollout={samples: 2}", "topology.name=single"]
    words += ["evaluation={tasks: 2, samples: 1, validation_tasks: 2, shown_tasks: 2}"]
    words += ["credit.name=reward_model", f"credit.adapter={adapter}", "credit.combine=worst"]
    words += ["verifier.name=reward_model", f"verifier.adapter={adapter}"]
    done = command.run(tmp_path, "--site-option", "cores=1", *words)
    assert done.returncode == 0, done.stderr
    credit = [json.loads(line) for f in (folder / "store" / "assign").rglob("credit.jsonl") for line in f.open()]
    assert len(credit) == 4 and all(c["errors"][0] > 0 for c in credit)
    assert all("the reward model gives it" in c["notes"][0] for c in credit)
    scores = {
        json.loads(line)["verdict"]["score"] for f in (folder / "store" / "grade").rglob("*.jsonl") for line in f.open()
    }
    assert scores & {0.0, 1.0}  # figures are measured by the family's own verifier
    assert any(0 < score < 1 for score in scores)  # what is shown is judged by the reward model


@pytest.mark.slow
def test_a_chain_trains_its_agents_on_its_reward_model(made, tmp_path):
    folder, tiny, _ = made
    # the tiny model is never right, so that its pairs come from a file
    rewarding = f"{{name: reward_model, labels: file, file: '{folder / 'pairs.jsonl'}', training: {{epochs: 1, lora: {{r: 2, alpha: 4}}}}}}"
    words = [f"model={tiny}", TASKS, "sampling={max_new_tokens: 6}", "topology.name=single", "rounds=1"]
    words += [f"stages=[{rewarding}, {{name: grpo, credit: {{name: reward_model}}}}]", "credit.name=uniform"]
    words += ["rollout={tasks: 3, samples: 4, plan: independent, shards: 1}", "training={lora: {r: 2, alpha: 4}}"]
    words += [
        "evaluation={tasks: 2, samples: 1, validation_tasks: 2, validation_samples: 1, shown_tasks: 1, shards: 1}"
    ]
    done = command.run(tmp_path, "--site-option", "cores=1", *words)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(f.read_text()) for f in (tmp_path / "store" / "batch").rglob("facts.json")]
    assert rows and rows[0]["solver"]["rows"] > 0  # all verdicts are 0: only the reward model tells the plays apart


def test_a_chain_hands_its_reward_model_on():
    stages = [{"name": "reward_model", "training_tasks": 5}, {"name": "grpo", "credit": {"name": "reward_model"}}]
    plan = Plan()
    post_train.dag(validated(PostTrain, {"stages": stages, "rounds": 1, "credit": {"name": "uniform"}}), plan)
    trained = [n for n in plan.nodes.values() if n.stage.name == "train"]
    (made,) = [n for n in trained if n.options["agent"] == "reward_model"]
    asked = [n for n in plan.nodes.values() if n.stage.name == "replay"]
    assert asked and all(n.inputs["reward_model"] == [made] for n in asked)


def test_a_missing_adapter_is_told_before_anything_starts():
    for section in ("credit", "verifier"):
        given = validated(PostTrain, {section: {"name": "reward_model"}})
        with pytest.raises(
            MeritError, match=f"run.py reward_model`, then give {section}.adapter=runs/reward_model/adapter"
        ):
            post_train.dag(given, Plan())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"engine": {"name": "scripted"}}, "engine.name=scripted"),
        ({"training": {"lora": None}}, "training.lora=None"),
        ({"objective": {"name": "dpo"}}, "learns by bradley_terry or outcome"),
        ({"objective": {"name": "process"}}, "made by the workflow process_reward"),
        ({"labels": "file"}, "labels=file and file=PATH go together"),
        ({"file": "x.jsonl"}, "labels=file and file=PATH go together"),
        ({"labels": "file", "file": "nowhere.jsonl"}, "file=nowhere.jsonl: there is no such file"),
        ({"check": "nowhere.jsonl"}, "check=nowhere.jsonl: there is no such file"),
        ({"labels": "judge", "judge": {"constitution": "no.md"}}, "judge.constitution=no.md"),
        ({"reading": {"by": "head"}}, "reading.by=head"),
    ],
)
def test_settings_that_cannot_train_a_reward_model_are_refused(given, message):
    with pytest.raises(MeritError, match=message):
        reward_model.dag(reward_model.Config(**given), Plan())


def test_an_agent_is_not_taught_a_scalar_head():
    with pytest.raises(MeritError, match="made by the workflow, or the stage, reward_model"):
        post_train.dag(PostTrain(objective={"name": "bradley_terry"}), Plan())
