"""The workflow `process_reward`, whole, with a tiny model; then credit from the adapter that it made."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from apps.records import MeritError
from tests import command, models
from workflows import model, process_reward
from workflows.config import PostTrain
from workflows.plan import Plan
from workflows.steps import Steps

SMALL = (
    "tasks={name: arithmetic, levels: [2], train: 12, validation: 8}",
    "training_tasks=5",
    "held_out_tasks=4",
    "repeats=2",
    "shards=2",
    "sampling={max_new_tokens: 6}",
    "training={epochs: 1, lora: {r: 2, alpha: 4}}",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(its folder, the model that it is trained on)."""
    folder = tmp_path_factory.mktemp("reward")
    tiny = models.make_model(folder / "tiny", context=512)
    done = command.run(folder, "process_reward", "--site-option", "cores=1", f"model={tiny}", *SMALL)
    assert done.returncode == 0, done.stderr
    return folder, tiny, done.stdout


def test_the_runs_folder_holds_an_adapter_and_its_figures(made):
    folder, _, printed = made
    run = folder / "runs" / "process_reward"
    config = json.loads((run / "adapter" / "adapter_config.json").read_text())
    assert config["r"] == 2 and (run / "adapter" / "adapter_model.safetensors").is_file()
    summary = json.loads((run / "summary.json").read_text())
    assert summary["state"] == "finished"
    for who in ("rated", "untrained"):
        assert summary[who]["continuations"]["steps"] == summary[who]["outcome"]["steps"] > 8
    assert summary["rated"] != summary["untrained"]  # the adapter was asked, not the bare model
    assert "scores of held-out steps" in printed and "runs/process_reward" in printed


def test_labels_are_of_training_tasks_and_whole_completions(made):
    from transformers import AutoTokenizer

    from apps.training.rows import Rows

    folder, tiny, _ = made
    (file,) = (folder / "store" / "step_labels").rglob("reward_model.npz")
    rows, own = Rows.load(file), AutoTokenizer.from_pretrained(tiny)
    ends = {tuple(own(f"VERDICT: {word}<|end|>")["input_ids"]) for word in ("CORRECT", "INCORRECT")}
    assert {tuple(c.tolist()) for c in rows.completions} <= ends
    asked = [own.decode(p) for p in rows.prompts]
    assert all(a.startswith("<|user|>Check: ") and a.endswith("<|end|><|assistant|>") for a in asked)
    assert sum("Solution:" not in a for a in asked) == 5 and np.all(rows.advantages == 1)


def test_credit_from_the_adapter(made, tmp_path):
    folder, tiny, _ = made
    adapter = folder / "runs" / "process_reward" / "adapter"
    words = [f"model={tiny}", f"store={folder / 'store'}", SMALL[0], "sampling={max_new_tokens: 6}", "rounds=0"]
    words += ["rollout={samples: 2}"]
    words += ["evaluation={tasks: 2, samples: 1, validation_tasks: 2, shown_tasks: 2}"]
    words += ["credit.name=process_reward", f"credit.adapter={adapter}"]
    done = command.run(tmp_path, "--site-option", "cores=1", *words)
    assert done.returncode == 0, done.stderr
    credit = [json.loads(line) for f in (folder / "store" / "assign").rglob("credit.jsonl") for line in f.open()]
    scored = [c for c in credit if c["values"]]
    assert len(scored) == 4  # two plays of two shown tasks, before; the same team after is not asked again
    assert any(abs(v) > 1e-4 for c in scored for v in c["values"])
    assert all("reward model's score went from" in c["notes"][0] for c in scored)


def steps_of(**credit) -> Steps:
    return Steps(PostTrain(credit=credit, engine={"name": "transformers"}), Plan())


def test_a_missing_adapter_is_told_before_anything_starts(tmp_path):
    with pytest.raises(
        MeritError, match=r"run.py process_reward`, then give credit.adapter=runs/process_reward/adapter"
    ):
        steps_of(name="process_reward")._credit()
    with pytest.raises(MeritError, match="credit.adapter=.*there is no such file or folder"):
        steps_of(name="judge", adapter=str(tmp_path / "nowhere"))._credit()
    with pytest.raises(MeritError, match="no adapter in PEFT format"):
        steps_of(name="judge", adapter=str(tmp_path))._credit()


def test_keys_hold_what_an_adapter_is_and_not_where(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "adapter_model.safetensors").write_bytes(b"weights")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    credits = [steps_of(name="judge", adapter=str(tmp_path / name))._credit() for name in "ab"]
    assert credits[0] == credits[1] and str(tmp_path) not in json.dumps(credits)
    (tmp_path / "b" / "adapter_model.safetensors").write_bytes(b"others")
    assert steps_of(name="judge", adapter=str(tmp_path / "b"))._credit() != credits[0]
    arms = {"arms": {"x": {"credit": {"name": "judge", "adapter": str(tmp_path / "a")}}}, "credit": {"name": "uniform"}}
    assert model.places(arms) == {credits[0]["adapter"]: str(tmp_path / "a")}
    assert model.places({"model": "embedded", "credit": {"name": "uniform"}}) == {}
    judged = model.places({"credit": {"name": "judge", "model": "embedded"}})
    assert judged == {model.identity("embedded"): str(model.EMBEDDED)}


def test_a_judge_is_calibrated_on_all_shards_unless_it_is_told():
    told = {"sensitivity": 0.9, "specificity": 0.8, "prevalence": 0.5, "right": 9, "wrong": 9}
    for credit, expected in (({}, 1), ({"calibration": told}, 0)):
        steps = steps_of(name="judge", **credit)
        tasks, team = steps.tasks("train"), steps.untrained()
        steps.plan.round = 1
        played, judged = steps.rollout(tasks, team)
        assigned = steps.assign(tasks, played, judged, steps.replay(tasks, played, judged))
        assert len(played) == len(assigned) == 2
        calibrated = [node for node in steps.nodes.values() if node.stage.name == "calibrate"]
        assert len(calibrated) == expected
        assert all(node.inputs.get("calibration", [])[:1] == calibrated for node in assigned)
        assert all(len(node.inputs["replay"]) == 2 for node in calibrated)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"engine": {"name": "scripted"}}, "engine.name=scripted"),
        ({"training": {"lora": None}}, "training.lora=None"),
        ({"reading": {"adapter": "x"}}, "reading.adapter: who reads is trained here"),
        ({"reading": {"promt": "x"}}, "did you mean 'prompt'"),
    ],
)
def test_settings_that_cannot_train_a_reward_model_are_refused(given, message):
    with pytest.raises(MeritError, match=message):
        process_reward.dag(process_reward.Config(**given), Plan())
