"""Weights come from safetensors or not at all: a pickle in a model folder is named, and never runs."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch

from apps import weights
from apps.inference import adapter as adapters
from apps.inference.engines import transformers as engine
from apps.records import MeritError
from apps.training import app, policy
from apps.training.options import Options
from tests import models
from tests.training.test_ranks import made_rows
from workflows import model as chosen


class Trap:
    """Unpickling it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def mark(tmp_path):
    return tmp_path / "it_ran"


def spoil(folder: Path, mark: Path, *names: str) -> Path:
    """The folder's safetensors give way to pickles under these names."""
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    for name in names:
        (folder / name).write_bytes(pickle.dumps(Trap(mark)))
    return folder


@pytest.fixture
def trapped_model(tiny_model, tmp_path, mark):
    return spoil(Path(shutil.copytree(tiny_model, tmp_path / "model")), mark, "pytorch_model.bin", "model.pt")


@pytest.fixture
def trapped_adapter(tiny_model, tmp_path, mark):
    models.make_adapter(tiny_model, tmp_path / "adapter")
    return spoil(tmp_path / "adapter", mark, "adapter_model.bin")


def test_the_trap_works(mark):
    pickle.loads(pickle.dumps(Trap(mark)))
    assert mark.is_dir()


SAID = "weights are in model.pt, pytorch_model.bin, a format that can hold code"


@pytest.mark.parametrize(
    "opened",
    [
        lambda folder: engine.open_model(str(folder), "float32", "cpu"),
        lambda folder: policy.open_base(folder, Options()),
        lambda folder: policy.open_policy(folder, None, Options(lora=None), 0),
        lambda folder: chosen.locate(str(folder)),
        lambda folder: chosen.identity(str(folder), "credit.model"),
    ],
)
def test_a_model_of_pickles_is_refused_by_whoever_opens_it(trapped_model, mark, opened):
    with pytest.raises(MeritError, match=SAID):
        opened(trapped_model)
    assert not mark.exists()


@pytest.mark.parametrize("role", ["start", "teacher", "policies"])
def test_no_input_of_training_is_unpickled(tiny_model, trapped_model, trapped_adapter, tmp_path, mark, role):
    """A whole model to start from, one to learn from, and the adapter of an earlier round."""
    (tmp_path / "rows").mkdir()
    made_rows([3, 4]).save(tmp_path / "rows" / "solver.npz")
    given = trapped_model
    if role == "policies":
        given = tmp_path / "team"
        shutil.copytree(trapped_adapter, given / "solver")
        (given / "policies.json").write_text(json.dumps({"solver": {"digest": "0" * 16}}))
    (tmp_path / "out").mkdir()
    options = {"model": str(tiny_model), "agent": "solver", "seed": 3, "training": {"lora": {"r": 2}}}
    with pytest.raises(MeritError, match="a format that can hold code"):
        app.train(
            tmp_path / "out",
            {"batch": [tmp_path / "rows"], role: [given]},
            {**options, "objective": {"name": "sft"}},
        )
    assert not mark.exists()


@pytest.mark.parametrize(
    "opened",
    [
        lambda model, folder: adapters.read(folder, torch.zeros(1)),
        lambda model, folder: policy.open_policy(model, folder, Options(), 0),
        lambda model, folder: weights.check_adapter(folder, "credit.adapter"),
    ],
)
def test_an_adapter_of_a_pickle_is_refused(tiny_model, trapped_adapter, mark, opened):
    with pytest.raises(MeritError, match="weights are in adapter_model.bin, a format"):
        opened(tiny_model, trapped_adapter)
    assert not mark.exists()


def test_a_pickle_beside_safetensors_is_not_looked_at(tiny_model, tmp_path, mark):
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(mark)))
    weights.check_model(folder)
    assert policy.open_base(folder, Options()).num_parameters() > 0 and not mark.exists()


def test_an_index_cannot_lead_to_a_pickle(tiny_model, tmp_path, mark):
    folder = spoil(Path(shutil.copytree(tiny_model, tmp_path / "model")), mark, "model-1.bin")
    for name, said in (("model-1.bin", "no safetensors file"), ("../x.safetensors", "no safetensors file beside it")):
        (folder / weights.INDEX).write_text(json.dumps({"weight_map": {"a": name}}))
        with pytest.raises(MeritError, match=said):
            engine.open_model(str(folder), "float32", "cpu")
    (folder / weights.INDEX).write_text(json.dumps({"weight_map": {"a": "model-2.safetensors"}}))
    with pytest.raises(MeritError, match="'model-2.safetensors' is missing"):
        policy.open_base(folder, Options())
    (folder / weights.INDEX).write_text("[]")
    with pytest.raises(MeritError, match="cannot be read"):
        weights.check_model(folder)
    assert not mark.exists()


def test_what_is_there_in_parts_is_read(tiny_model, tmp_path):
    whole = policy.open_base(tiny_model, Options())
    whole.save_pretrained(tmp_path / "parts", max_shard_size="20KB")
    assert (tmp_path / "parts" / weights.INDEX).is_file()
    again = policy.open_base(tmp_path / "parts", Options())
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("missing", ["config.json", "weights"])
def test_a_folder_that_is_no_model_says_what_is_looked_for(tiny_model, tmp_path, missing):
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    (folder / ("config.json" if missing == "config.json" else "model.safetensors")).unlink()
    with pytest.raises(MeritError, match="no Hugging Face model folder" if missing == "config.json" else "no weights"):
        weights.check_model(folder, "teacher")
