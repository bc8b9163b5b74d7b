"""LoRA, rsLoRA, DoRA and whole models: what was trained is what an engine speaks with, and it goes on from there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from apps import policies
from apps.inference import four_bit
from apps.inference.engines import transformers
from apps.inference.models import Models
from apps.platform.mpi import World
from apps.records import MeritError, Policy
from apps.training import canary, fit, policy
from apps.training.options import Options
from apps.training.rows import Rows
from tests import models

KINDS = {
    "lora": {"lora": {"r": 4}},
    "rslora": {"lora": {"r": 4, "rslora": True}},
    "dora": {"lora": {"r": 4, "dora": True}},
    "both": {"lora": {"r": 4, "dora": True, "rslora": True}},
    "whole": {"lora": None, "lr": 1e-3},
}


def rows(count: int = 8) -> Rows:
    rng = np.random.default_rng(3)
    said = [[models.random_ids(rng, 6) for _ in range(count)] for _ in range(2)]
    return Rows(*said, [np.zeros(0, np.float32)] * count, np.ones(count))


@pytest.fixture
def trained(tiny_model, tmp_path):
    """Trains the solver of a team; returns the folder and the stage's facts."""

    def train(name: str, kind: dict, team: Path | None = None, batch: Rows | None = None, model: Path | None = None):
        out, made = tmp_path / name, tmp_path / f"{name}_batch"
        out.mkdir()
        made.mkdir()
        (batch or rows()).save(made / "solver.npz")
        settings = {"epochs": 2, "step_rows": 4, "lr": 1e-2, **kind}
        options = {"model": str(model or tiny_model), "agent": "solver", "training": settings, "seed": 1}
        inputs = {"batch": [made], "policies": [team or base(tmp_path / f"{name}_team")]}
        return out, fit.fit(out, inputs, {**options, "objective": {"name": "sft"}}, World())

    return train


def base(folder: Path) -> Path:
    folder.mkdir()
    policies.base(folder, {}, {"agents": ["solver"]})
    return folder


def gathered(folder: Path, before: Path, out: Path, facts: dict) -> Path:
    (out / "facts.json").write_text(json.dumps(facts))
    folder.mkdir()
    policies.gather(folder, {"policies": [before], "train": [out]}, {})
    return folder


def spoken(model: Path) -> Models:
    return Models(lambda place: transformers.load(place, transformers.Options(), "cpu"), str(model), 2)


@pytest.mark.parametrize("kind", KINDS)
def test_an_engine_speaks_with_what_was_trained(tiny_model, trained, tmp_path, kind):
    out, facts = trained("one", KINDS[kind])
    team = gathered(tmp_path / "team", base(tmp_path / "base"), out, facts)
    who, engine = policies.read(team)["solver"], spoken(tiny_model)
    assert who.digest == facts["digest"] != "base"
    assert canary.check(out, "solver", lambda pairs: engine.score(who, pairs)) < 1e-4
    with pytest.raises(MeritError, match="differ"):  # the training moved it
        canary.check(out, "solver", lambda pairs: engine.score(Policy("solver"), pairs))


@pytest.mark.parametrize("kind", ["lora", "dora", "whole"])
def test_a_later_round_goes_on_from_the_weights_and_the_optimiser_that_the_last_one_left(trained, tmp_path, kind):
    """Two rounds of an epoch each, of one step each, are two epochs."""
    once = {**KINDS[kind], "epochs": 1, "step_rows": 8}
    out, facts = trained("one", once)
    team = gathered(tmp_path / "team", base(tmp_path / "base"), out, facts)
    twice, _ = trained("two", once, team)
    together, _ = trained("both", {**once, "epochs": 2})
    assert differ(twice, together) < 1e-6 < differ(out, together)


def differ(one: Path, other: Path) -> float:
    from safetensors.torch import load_file

    name = policy.ADAPTER if (one / policy.ADAPTER).is_file() else policy.MODEL
    left, right = load_file(one / name), load_file(other / name)
    assert left.keys() == right.keys()
    return max(float((left[key] - right[key]).abs().max()) for key in left)


def test_all_weights_go_on_from_an_adapter_with_it_added(tiny_model, trained, tmp_path):
    out, _ = trained("adapter", KINDS["dora"])
    opened = policy.open_policy(tiny_model, out, Options(lora=None), 0)
    assert all(p.requires_grad for p in opened.parameters()) and not hasattr(opened, "peft_config")
    ids = torch.tensor([[7, 9, 12, 30]])
    with torch.no_grad():
        expected = policy.open_policy(tiny_model, out, Options(), 0).eval()(ids).logits
        assert torch.allclose(opened.eval()(ids).logits, expected, atol=1e-5)


def test_a_whole_model_is_not_given_an_adapter(trained, tmp_path):
    out, facts = trained("one", KINDS["whole"])
    team = gathered(tmp_path / "team", base(tmp_path / "base"), out, facts)
    with pytest.raises(MeritError, match="solver is a whole model since an earlier stage.*training.lora=null"):
        trained("two", KINDS["lora"], team)


def test_words_of_another_vocabulary_are_told(tiny_model, trained, tmp_path):
    other = models.make_model(tmp_path / "other", seed=2, more=("another", "few", "words"))
    out, facts = trained("one", KINDS["lora"])
    assert json.loads((out / "base.json").read_text())["vocabulary"] < models_words(other)
    with pytest.raises(MeritError, match=r"made for a base model with a vocabulary of \d+ tokens, and this one's has"):
        policy.open_policy(other, out, Options(), 0)
    engine = transformers.load(str(other), transformers.Options(), "cpu")
    with pytest.raises(MeritError, match="Give the base model that it was trained on"):
        engine.score(Policy("solver", facts["digest"], str(out)), [(models.ids(5), models.ids(6))])
    strange = Rows([models.ids(5)], [models.ids(10_000)], [np.zeros(0, np.float32)], np.ones(1))
    with pytest.raises(
        MeritError, match=r"row 0 has the token 10000, and the model.s vocabulary ends at \d+: .* another tokenizer"
    ):
        trained("two", KINDS["lora"], batch=strange)


def models_words(folder: Path) -> int:
    return json.loads((folder / "config.json").read_text())["vocab_size"]


def test_four_bits_are_refused_where_there_are_no_kernels_for_them(monkeypatch):
    monkeypatch.setattr(four_bit.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MeritError, match=r"quantise=nf4 .*bitsandbytes, which has them, is not installed here"):
        four_bit.check("cuda")
    monkeypatch.setattr(four_bit.importlib.util, "find_spec", lambda name: object())
    four_bit.check("cuda:1")
    for device in ("cpu", "mps"):
        with pytest.raises(MeritError, match=f"no 4-bit kernels for {device}"):
            four_bit.check(device)
    with pytest.raises(ValueError, match="cannot be divided by ZeRO"):
        Options(lora={"quantise": "nf4"}, parallel="zero2")


@pytest.mark.slow  # with bitsandbytes alone, which most machines have no use for
@pytest.mark.parametrize("dora", [False, True])
def test_a_policy_over_four_bits_speaks_over_four_bits(trained, tmp_path, monkeypatch, dora):
    """On a CPU bitsandbytes has a slow way that is exact, which shows that trainer and engine do the same."""
    modules = pytest.importorskip("bitsandbytes.nn.modules")
    monkeypatch.setattr(modules, "has_avx512bf16", lambda: False)
    monkeypatch.setattr(four_bit, "KINDS", ("cpu",))
    embedded = Path(policies.__file__).parent / "data" / "embedded"
    out, facts = trained("one", {"lora": {"quantise": "nf4", "dora": dora}}, model=embedded)
    who = Policy("solver", facts["digest"], str(out))
    for quantise, fits in (("nf4", True), (None, False)):
        engine = transformers.load(str(embedded), transformers.Options(quantise=quantise), "cpu")
        scores = engine.score(who, list(zip(*kept(out), strict=True)))
        apart = max(np.abs(a - b).max() for a, b in zip(scores, Rows.load(out / canary.FILE).logprobs, strict=True))
        assert (apart < 1e-4) == fits


def kept(out: Path):
    found = Rows.load(out / canary.FILE)
    return found.prompts, found.completions
