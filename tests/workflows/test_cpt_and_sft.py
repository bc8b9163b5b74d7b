"""The workflows `sft` and `cpt`, whole, with a tiny model; what they refuse before anything runs."""

from __future__ import annotations

import json
import shutil

import pytest

from apps.records import MeritError
from tests import command, models
from workflows import config, cpt, post_train, pretrain, sft
from workflows.plan import Plan

TALKS = [
    {
        "messages": [
            {"role": "system", "content": "Report"},
            {"role": "user", "content": f"{task.question} " * 3},
            {"role": "assistant", "content": f"ANSWER: {task.answer}"},
        ]
    }
    for task in models.tasks(30)
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    models.make_model(folder / "tiny", context=64)
    (folder / "talks.jsonl").write_text("\n".join(map(json.dumps, TALKS)))
    (folder / "law").mkdir()
    for number, task in enumerate(models.tasks(30)):
        (folder / "law" / f"{number}.txt").write_text(f"{task.question} oranges {number}. VERDICT: CORRECT")
    (folder / "web.jsonl").write_text("\n".join(json.dumps({"body": t.question}) for t in models.tasks(40)))
    (folder / "terms.txt").write_text("oranges\nANSWER\n")
    return folder


@pytest.mark.slow
def test_sft_makes_an_adapter_that_finds_held_out_answers_likelier(place):
    words = [
        "model=tiny",
        "data={path: talks.jsonl, held_out: 0.2, context: 56}",
        "training={lr: 0.02, epochs: 6, step_rows: 8}",
    ]
    done = command.run(place, "sft", "--site-option", "cores=1", *words)
    assert done.returncode == 0, done.stderr
    run = place / "runs" / "sft"
    summary = json.loads((run / "summary.json").read_text())
    found = summary["losses"]["model"]
    assert summary["state"] == "finished" and found["high"] < 0 and found["rows"] == 6
    assert summary["data"]["model"]["shortened"] > 0 and "lost a part of their context" in done.stdout
    assert (run / "adapter" / "adapter_model.safetensors").is_file() and "held-out loss, nats a token" in done.stdout
    moved = place / "elsewhere"
    moved.mkdir()
    shutil.copy(place / "talks.jsonl", moved / "other.jsonl")
    again = command.run(place, "sft", "--dry-run", words[0], words[1].replace("talks", "elsewhere/other"), words[2])
    assert again.stdout.split("all")[-1].split() == ["5", "5"]  # contents decide, not paths


@pytest.mark.slow
def test_cpt_makes_a_model_with_new_words_a_longer_context_and_its_general_loss_held(place):
    words = ["model=tiny", "data.law.path=law", "general.web={path: web.jsonl, field: body}", "terms=terms.txt"]
    words += ["waves=2", "steps=3", "training={lr: 3e-3, step_rows: 8}", "positions={name: yarn, factor: 2}"]
    done = command.run(place, "cpt", "--site-option", "cores=1", "objective.kl=0.05", *words)
    assert done.returncode == 0, done.stderr
    run = place / "runs" / "cpt"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["losses"]["law"]["high"] < 0 and len(summary["waves"]) == 2
    assert [w["counts"] for w in summary["waves"]] == [{"law": 19, "web": 5}] * 2
    assert [w["warm_up"] for w in summary["waves"]] == [True, False]
    config = json.loads((run / "model" / "config.json").read_text())
    assert config["max_position_embeddings"] == 128 and config["rope_parameters"]["rope_type"] == "yarn"
    assert not (run / "model" / "optimiser.safetensors").exists() and not (run / "model" / "gate.json").exists()
    assert "oranges" in done.stdout and "wave 2: kept" in done.stdout
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = (kind.from_pretrained(run / "model") for kind in (AutoTokenizer, AutoModelForCausalLM))
    (token,) = tokenizer(" oranges", add_special_tokens=False)["input_ids"]
    assert token != tokenizer.unk_token_id and model.config.vocab_size == len(tokenizer)
    went_on = command.run(place, "sft", "--dry-run", "model=runs/cpt/model")
    assert went_on.returncode == 0, went_on.stderr


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": "tiny"}, "wants documents: data.NAME.path"),
        ({"data": {"a": {}}}, "'a' wants either a path or a kind"),
        ({"data": {"a": {"path": "nowhere.jsonl"}}}, "there is no such file"),
        ({"data": {"plain": {"kind": "plain"}}, "general": {"plain": {"kind": "plain"}}}, "a new and a general domain"),
        ({"training": {"lora": None, "epochs": 2}}, "a wave is gone through once"),
        ({"training": {}}, "trains all weights"),
        ({"mixture": {"weights": {"carefull": 1}}}, "there is no 'carefull'; did you mean 'careful'"),
    ],
)
def test_courses_that_make_no_sense_are_refused_before_anything_runs(place, monkeypatch, given, message):
    monkeypatch.chdir(place)
    with pytest.raises(MeritError, match=message):
        cpt.dag(cpt.Config(**given), Plan())


def test_sft_refuses_files_and_layers_that_are_not_there(place, monkeypatch):
    monkeypatch.chdir(place)
    with pytest.raises(
        MeritError, match=r"data.path=talk.jsonl: there is no such file or folder; did you mean 'talks.jsonl'"
    ):
        sft.dag(sft.Config(data={"path": "talk.jsonl"}), Plan())
    with pytest.raises(MeritError, match="there is no 'qproj'; did you mean 'q_proj'"):
        sft.dag(sft.Config(training={"lora": {"targets": ["qproj"]}}), Plan())


def test_without_waves_the_vocabulary_is_extended_and_nothing_is_trained(place, monkeypatch):
    monkeypatch.chdir(place)
    plan = Plan()
    found = cpt.dag(cpt.Config(terms="terms.txt", waves=0), plan)
    assert found["model"].stage.name == "extend" and "train" not in plan.counts()


def test_a_course_without_general_data_has_no_teacher_and_one_with_a_kl_has():
    for kl, expected in ((0.0, False), (0.1, True)):
        plan = Plan()
        cpt.dag(cpt.Config(objective={"name": "next_token", "kl": kl}), plan)
        trained = [node for node in plan.nodes.values() if node.stage.name == "train"]
        assert len(trained) == 3 and all(("teacher" in node.inputs) == expected for node in trained)


def chained(stages: str) -> tuple[Plan, dict]:
    plan = Plan()
    return plan, post_train.dag(config.load(config.PostTrain, None, ["rounds=1", f"stages={stages}"]), plan)


def test_in_a_chain_a_new_base_is_what_all_later_stages_open_and_every_policy_is_fine_tuned_on_it():
    plan, found = chained("[{name: cpt, waves: 2}, sft, grpo]")
    last = [node for node in plan.nodes.values() if node.stage.name == "gate"][-1]
    assert found["model"] is last and last.options["last"]
    (rows,) = [node for node in plan.nodes.values() if node.stage.name == "conversations"]
    assert rows.inputs["start"] == [last] and rows.options["agents"] == ["solver", "critic", "reviser", "verifier"]
    tuned = [n for n in plan.nodes.values() if n.stage.name == "train" and n.inputs["batch"] == [rows]]
    assert [n.options["agent"] for n in tuned] == rows.options["agents"]
    assert all(n.inputs["start"] == [last] and n.round == 1 for n in tuned)
    later = [n for n in plan.nodes.values() if n.round == 2 and n.stage.name in ("rollout", "replay", "train")]
    assert later and all(n.inputs["start"] == [last] for n in later)
    first, second = (n for n in plan.nodes.values() if n.stage.name == "promote")
    assert first.options["promotion"]["rule"] == "always" and second.options["promotion"]["rule"] == "not_worse"


def test_a_base_is_not_changed_under_policies_that_were_trained_on_it():
    with pytest.raises(MeritError, match=r"stages\[1\] \(cpt\): .*put cpt first"):
        chained("[grpo, cpt]")


def test_pretraining_goes_on_with_documents_where_that_is_asked():
    plan = Plan()
    found = pretrain.dag(pretrain.Config(cpt={"waves": 1}), plan)
    (extend,) = [node for node in plan.nodes.values() if node.stage.name == "extend"]
    assert extend.inputs["start"][0].stage.name == "card" and found["model"].stage.name == "gate"
    assert pretrain.dag(pretrain.Config(), Plan())["model"].stage.name == "card"


def test_conversations_are_for_an_agent_or_for_all():
    from apps.data import conversations

    talks = [{**TALKS[0], "agent": "critic"}, TALKS[1], {**TALKS[2], "agent": "solver"}]
    assert conversations.of_agent(talks, "critic", ["solver", "critic"]) == talks[:2]
    assert conversations.of_agent(talks, "solver", ["solver", "critic"]) == talks[1:]
    with pytest.raises(MeritError, match="there is no 'critic'; did you mean 'critics'"):
        conversations.of_agent(talks, "solver", ["solver", "critics"])
