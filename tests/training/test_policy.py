"""The layers that an adapter is put on: a name that the model lacks is told before anything is trained or planned."""

from __future__ import annotations

import pytest

from apps.records import MeritError
from apps.training import policy
from apps.training.options import Lora, Options
from workflows import model

LAYERS = ["model.layers.0.self_attn.q_proj", "model.layers.1.mlp.up_proj", "lm_head"]
LINEAR = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


@pytest.mark.parametrize("target", ["q_proj", "self_attn.q_proj", "model.layers.1.mlp.up_proj", "lm_head"])
def test_a_layer_is_named_whole_or_by_its_end(target):
    policy.check_targets([target], LAYERS)


@pytest.mark.parametrize("target", ["q_prj", "proj", "_proj", "layers.1.self_attn.q_proj", "mlp", ""])
def test_a_target_that_is_no_layer_is_told_with_those_there_are(target):
    """The library itself lets a name pass that matches nothing, so long as another one matches."""
    with pytest.raises(MeritError, match=r"training.lora.targets: layer: .*known: lm_head, q_proj, up_proj\)"):
        policy.check_targets(["q_proj", target], LAYERS)


def test_a_models_layers_are_known_from_its_files_alone(tiny_model):
    ends = {name.rpartition(".")[2] for name in model.layers(str(tiny_model))}
    assert ends == {*LINEAR, "embed_tokens"}


def test_what_the_files_say_is_what_the_opened_model_has(tiny_model):
    targets = sorted(LINEAR)
    opened = policy.open_policy(tiny_model, None, Options(lora=Lora(targets=targets)), seed=0)
    adapted = {name.split(".lora_A")[0].rpartition(".")[2] for name, _ in opened.named_parameters() if "lora_A" in name}
    assert adapted == LINEAR
    with pytest.raises(MeritError, match=r"there is no 'q_prj'; did you mean 'q_proj'\? \(known: down_proj, .*up_proj"):
        policy.open_policy(tiny_model, None, Options(lora=Lora(targets=("q_proj", "q_prj"))), seed=0)


@pytest.mark.parametrize(
    "contents", [b"", b"version https://git-lfs.github.com/spec/v1\n", b"\x08" + bytes(7) + b"no json!"]
)
def test_weights_that_are_none_are_told(tmp_path, contents):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(contents)
    with pytest.raises(MeritError, match="model.safetensors is no safetensors file"):
        model.layers(str(tmp_path))
