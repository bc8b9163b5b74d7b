"""GSM8K with any local Hugging Face model: the real command, the real rows, a Qwen2 of random weights.

Random weights know nothing, so nothing here is about accuracy: it is about a foreign architecture, a foreign tokenizer and chat
template, and files that others can read.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests import command

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ROLES = ("solver", "critic", "reviser", "verifier")
RECIPE = command.ROOT / "workflows" / "configs" / "gsm8k.yaml"
TINY = (
    "rounds=1",
    "sampling.max_new_tokens=6",
    "engine.dtype=float32",
    "rollout={tasks: 2, samples: 4, shards: 1}",
    "credit={name: uniform}",
    "verifier={name: LAST}",
    "training.micro_tokens=1024",
    "training.lora.r=4",
    "promotion.rule=always",
    "evaluation={tasks: 4, samples: 1, validation_tasks: 2, validation_samples: 1, shown_tasks: 2, shards: 1}",
)
LENIENT = '''"""Right where the text is longer than it is even: random weights are to be right now and then."""
from apps import records
from apps.records import Verdict
class Options(records.Options):
    """Nothing."""
def verify(task, text, options):
    return Verdict(float(len(text) % 2), str(len(text) % 2), "by length")
def check_gold(task, options):
    """Every task is fine."""
'''


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def model(tmp_path_factory, shared_data) -> Path:
    """A Qwen2 of 2 layers with a byte-level BPE tokenizer made from GSM8K and a ChatML template."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    folder = tmp_path_factory.mktemp("qwen")
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=800, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    texts = [row["question"] + "\n" + row["answer"] for row in rows(shared_data / "gsm8k" / "test.jsonl")[:300]]
    tokenizer.train_from_iterator(texts, trainer)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    wrapped.chat_template = CHATML
    wrapped.save_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(wrapped),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        eos_token_id=wrapped.eos_token_id,
        pad_token_id=wrapped.pad_token_id,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, model, shared_data) -> Path:
    """A folder in which the recipe was run once on a few rows."""
    folder = tmp_path_factory.mktemp("gsm8k")
    (folder / "rows").mkdir()
    for split, count in (("train", 60), ("test", 10)):
        lines = (shared_data / "gsm8k" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        (folder / "rows" / f"{split}.jsonl").write_text("".join(lines[:count]), encoding="utf-8")
    (folder / "lenient.py").write_text(LENIENT)
    ended = command.run(folder, *words(model))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return folder


def words(model: Path) -> list[str]:
    tiny = [word.replace("LAST", "lenient.py") for word in TINY]
    return ["--config", str(RECIPE), f"model={model}", "tasks.name=gsm8k", "tasks.path=rows", *tiny]


def test_the_run_ends_with_its_figures(workplace):
    summary = json.loads((workplace / "runs" / "gsm8k" / "summary.json").read_text())
    assert summary["state"] == "finished"
    assert summary["accuracy"]["greedy"]["n"] == summary["accuracy"]["sampled"]["n"] == 4
    assert summary["tokens"]["sampled"] > 0 and summary["tokens"]["trained"] > 0
    assert set(summary["credit"]) == set(ROLES)
    assert (workplace / "runs" / "gsm8k" / "report.html").stat().st_size > 10_000


def test_the_prompts_went_through_the_models_own_template(workplace):
    told = command.run(workplace, "trace", "gsm8k", "gsm8k-", "--full")
    assert told.returncode == 0, told.stderr
    settings = yaml.safe_load((workplace / "runs" / "gsm8k" / "config.yaml").read_text())
    assert settings["team"]["prompts"]["critic"].endswith('else "VERDICT: INCORRECT".')

    from apps.inference import traces

    (file, *_) = sorted((workplace / "store" / "rollout").rglob(traces.FILE))
    turn = traces.read(file)[0].turns[0]
    assert turn.prompt.startswith("<|im_start|>system\nYou are a careful member of a team")
    assert turn.prompt.endswith("<|im_end|>\n<|im_start|>assistant\n")


def test_the_adapters_load_with_peft_and_change_the_model(workplace, model):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    adapters = workplace / "runs" / "gsm8k" / "adapters"
    trained = sorted(folder.name for folder in adapters.iterdir())
    assert set(trained) <= set(ROLES) and "solver" in trained
    ids = torch.arange(3, 23)[None]
    with torch.no_grad():
        plain = AutoModelForCausalLM.from_pretrained(model)(ids).logits
        adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), adapters / "solver")
        assert (adapted(ids).logits - plain).abs().max() > 1e-6
    config = json.loads((adapters / "solver" / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"]) == ("LORA", 4)
    assert str(model.parent) not in json.dumps(config)  # no path of this machine travels with it


def test_a_second_run_computes_nothing(workplace, model):
    made = {f: f.stat().st_mtime_ns for f in (workplace / "store").rglob("manifest.json")}
    planned = command.run(workplace, *words(model), "--dry-run")
    total = planned.stdout.strip().splitlines()[-1].split()
    assert total[0] == "all" and total[1] == total[2]
    before = (workplace / "runs" / "gsm8k" / "summary.json").read_bytes()
    again = command.run(workplace, *words(model))
    assert again.returncode == 0, again.stderr
    assert {f: f.stat().st_mtime_ns for f in (workplace / "store").rglob("manifest.json")} == made
    assert (workplace / "runs" / "gsm8k" / "summary.json").read_bytes() == before


def test_another_place_of_the_same_model_and_rows_is_the_same_run(workplace, model, tmp_path):
    """Keys are made of contents, not of paths."""
    import shutil

    shutil.copytree(model, tmp_path / "copy")
    planned = command.run(workplace, *words(tmp_path / "copy"), "--dry-run")
    counts = {r.split()[0]: r.split()[1:] for r in planned.stdout.splitlines() if r.startswith(("rollout", "train "))}
    assert counts["rollout"][0] == counts["rollout"][1] and counts["train"][0] == counts["train"][1]


def test_a_model_that_is_not_there_is_told(workplace):
    ended = command.run(workplace, "--config", str(RECIPE), "tasks.path=rows")
    assert ended.returncode == 2
    assert "model=PATH-OF-AN-INSTRUCT-MODEL: there is no Hugging Face model folder" in ended.stderr
