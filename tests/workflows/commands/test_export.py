"""Exported policies: plain transformers and peft say of them what Merit's engine says of the run's own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from apps.inference.engines import transformers
from apps.records import MeritError, Policy
from apps.training import policy
from apps.training.options import Lora, Options
from tests import models
from workflows import config as configuration
from workflows import model
from workflows.commands import export
from workflows.config import PostTrain

KINDS = {"solver": Lora(r=4), "critic": Lora(r=4, dora=True), "reviser": Lora(r=4, rslora=True)}
FIGURE = {"value": 0.25, "low": 0.125, "high": 0.5, "n": 12}
BETTER = {"value": 0.75, "low": None, "high": None, "n": 12}
SUMMARY = {
    "accuracy": {mode: {"before": FIGURE, "after": BETTER, "n": 12} for mode in ("greedy", "sampled")},
    "solver_alone": {},
    "roles": {"critic": {"balanced_accuracy": {"before": FIGURE, "after": {"value": None}}}},
}
IDS = [5, 9, 12, 30, 7, 44, 21, 6]
PROMPT = 3  # of these ids


@pytest.fixture(scope="module")
def run(tiny_model, tmp_path_factory) -> Path:
    """A run's folder with the trained policies of four agents: three kinds of adapter and a whole model."""
    folder = tmp_path_factory.mktemp("runs") / "mine"
    base = model.identity(str(tiny_model))
    for number, (agent, kind) in enumerate(KINDS.items()):
        out = folder / "adapters" / agent
        trained(policy.open_policy(tiny_model, None, Options(lora=kind), number), tiny_model, out, base)
    whole = policy.open_policy(tiny_model, None, Options(lora=None), 0)
    trained(whole, tiny_model, folder / "models" / "verifier", base)
    settings = PostTrain(name="mine", model=str(tiny_model), training={"lora": {"r": 4, "dora": True}})
    (folder / "config.yaml").write_text(configuration.dump(settings))
    (folder / "environment.json").write_text(json.dumps({"folder": str(folder)}))
    (folder / "summary.json").write_text(json.dumps(SUMMARY))
    (folder / "adapters" / "critic" / "optimiser.safetensors").write_bytes(b"large")
    return folder


def trained(opened, base: Path, out: Path, digest: str) -> None:
    """Moves all trained weights a little, as training would."""
    torch.manual_seed(len(out.name))
    for parameter in opened.parameters():
        if parameter.requires_grad:
            parameter.data += 0.05 * torch.randn_like(parameter)
    out.mkdir(parents=True)
    policy.save(opened, base, out, digest)


def expected(run: Path, agent: str, base: Path) -> np.ndarray:
    """The engine's log-probabilities with the run's own folder."""
    whole, adapter = run / "models" / agent, run / "adapters" / agent
    engine = transformers.load(str(whole if whole.is_dir() else base), transformers.Options(), "cpu")
    who = Policy(agent, "digest", "" if whole.is_dir() else str(adapter))
    return engine.score(who, [(models.ids(*IDS[:PROMPT]), models.ids(*IDS[PROMPT:]))])[0]


def said(opened) -> np.ndarray:
    with torch.no_grad():
        logprobs = opened.eval()(torch.tensor([IDS])).logits[0].log_softmax(-1)
    return np.array([float(logprobs[i - 1, IDS[i]]) for i in range(PROMPT, len(IDS))])


def plain(folder: Path):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, use_safetensors=True)


@pytest.mark.parametrize("agent", [*KINDS, "verifier"])
def test_an_export_says_what_the_engine_says(run, tiny_model, tmp_path, agent):
    from peft import PeftModel
    from transformers import AutoTokenizer

    wanted = expected(run, agent, tiny_model)
    assert np.abs(wanted - said(plain(tiny_model))).max() > 0.01, "the training left no trace"
    for merge in (False, True):
        (out,) = export.write(run, tmp_path / f"{merge}", agent, merge)
        adapter = (out / "adapter_config.json").is_file()
        assert adapter == (not merge and agent != "verifier")
        opened = PeftModel.from_pretrained(plain(tiny_model), out) if adapter else plain(out)
        assert np.abs(said(opened) - wanted).max() < 1e-4
        tokenizer = AutoTokenizer.from_pretrained(out)
        assert tokenizer.chat_template and tokenizer("ANSWER: 1")["input_ids"]
        kinds = {file.suffix for file in out.iterdir()}
        assert kinds <= {".safetensors", ".json", ".jinja", ".md"} and not (out / "optimiser.safetensors").exists()


def test_all_agents_are_exported_each_with_a_card(run, tmp_path):
    folders = export.write(run, tmp_path / "all")
    assert {f.name for f in folders} == {*KINDS, "verifier"}
    card = (tmp_path / "all" / "critic" / "README.md").read_text()
    for part in (
        "library_name: peft", "(DoRA of rank 4)", "**critic** (duty: check)", "`solve_critique_revise`",
        "| critic: balanced accuracy | 0.250 [0.125, 0.500] | – |", "| team, greedy | 0.250 [0.125, 0.500] | 0.750 |",
        "`shapley` (repeats 2)", "`grpo` (beta 0.0)", "PeftModel.from_pretrained", "whose licence holds", "Check: {question}",
    ):  # fmt: skip
        assert part in card, part
    whole = (tmp_path / "all" / "verifier" / "README.md").read_text()
    assert "library_name: transformers" in whole and "PeftModel" not in whole


def test_merged_weights_may_be_kept_in_half_the_bytes(run, tmp_path):
    (out,) = export.write(run, tmp_path / "half", "critic", True, dtype="bfloat16")
    from safetensors.torch import load_file

    assert {tensor.dtype for tensor in load_file(out / "model.safetensors").values()} == {torch.bfloat16}
    assert "kept in bfloat16" in (out / "README.md").read_text()


def test_what_cannot_be_exported_is_told_and_leaves_nothing(run, tiny_model, tmp_path):
    shutil.copytree(run, tmp_path / "mine")
    shutil.rmtree(tmp_path / "mine" / "adapters" / "reviser")
    there = tmp_path / "there"
    there.mkdir()
    (there / "file").write_text("kept")
    other = models.make_model(tmp_path / "other", seed=9)
    for given, match in (
        ({"agent": "critc"}, "did you mean 'critic'"),
        ({"agent": "reviser"}, r"it is its base model still.*trained: critic, solver, verifier"),
        ({"agent": "critic", "base": str(other)}, "adapter was trained on a base model with the digest.*give the right one by --base"),
        ({"agent": "critic", "base": str(tmp_path)}, r"--base=.*there is no Hugging Face model folder"),
        ({"agent": "critic", "dtype": "float3"}, "did you mean 'float32'"),
        ({"out": there}, "it is there already"),
    ):  # fmt: skip
        with pytest.raises(MeritError, match=match):
            export.write(**{"run": tmp_path / "mine", "out": tmp_path / "out", **given})
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.part").exists()
    assert (there / "file").read_text() == "kept"


def test_a_base_model_that_was_moved_is_named(run, tiny_model, tmp_path):
    moved = shutil.copytree(tiny_model, tmp_path / "moved")
    (out,) = export.write(run, tmp_path / "out", "critic", True, base=str(moved))
    assert np.abs(said(plain(out)) - expected(run, "critic", tiny_model)).max() < 1e-4


def test_a_model_that_the_run_made_takes_the_base_s_place(run, tiny_model, tmp_path):
    """As where a stage of continued pretraining went before: the adapter is for what that left, and the card says so."""
    mine = shutil.copytree(run, tmp_path / "mine")
    made = models.make_model(mine / "model", seed=7)
    (out,) = export.write(mine, tmp_path / "out", "critic", True)
    engine = transformers.load(str(made), transformers.Options(), "cpu")
    pair = (models.ids(*IDS[:PROMPT]), models.ids(*IDS[PROMPT:]))
    (wanted,) = engine.score(Policy("critic", "digest", str(run / "adapters" / "critic")), [pair])
    assert np.abs(said(plain(out)) - wanted).max() < 1e-4
    card = (out / "README.md").read_text()
    assert "base_model: mine/model" in card and model.identity(str(made))[:16] in card
