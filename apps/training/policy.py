"""Opens the weights that are to be trained and saves them: an adapter in PEFT format, or a whole model.

Weights are read from safetensors only.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apps import leaf, weights
from apps.inference import four_bit
from apps.inference.adapter import BASE, check_base
from apps.records import MeritError
from apps.training.forward import SCALAR

if TYPE_CHECKING:
    from torch import nn

    from apps.training.options import Lora, Options

ADAPTER = "adapter_model.safetensors"
MODEL = "model.safetensors"
TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)
SCALAR_HEAD = "scalar_head.safetensors"  # beside the adapter, or the whole model, of a reward or value model


def open_base(model: Path, options: Options, **loading: Any) -> nn.Module:
    """The whole model of a folder, in float32; `loading` is what else `from_pretrained` is told."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    weights.check_model(model)
    logging.disable_progress_bar()  # a run's own display says what goes on
    base = AutoModelForCausalLM.from_pretrained(
        model,
        dtype=torch.float32,
        use_safetensors=True,
        local_files_only=True,
        attn_implementation=options.attention,
        **loading,
    )
    for key in ("final_logit_softcapping", "logit_scale", "logits_scaling"):
        if getattr(base.config, key, None) not in (None, 1, 1.0):
            raise MeritError(f"model={model}: its head changes the logits ({key}), which the trainer does not follow")
    return base


def open_policy(model: Path, adapter: Path | None, options: Options, seed: int, device: str = "cpu") -> nn.Module:
    """The base model with a trainable adapter: that of `adapter`, or a new one; or the whole model without LoRA.

    Where all weights are trained and there is an adapter, they go on from the two together.
    """
    quantised = options.lora is not None and options.lora.quantise
    base = open_base(model, options, **(four_bit.loading(options.dtype, device) if quantised else {}))
    if adapter is not None:
        weights.check_adapter(adapter)
        check_base(adapter, base.config.get_text_config().vocab_size)
    if options.lora is None and adapter is None:
        return base
    import torch
    from peft import PeftModel, get_peft_model

    if options.lora is None:
        return PeftModel.from_pretrained(base, adapter).merge_and_unload().requires_grad_(True)
    if adapter is not None:
        return PeftModel.from_pretrained(base, adapter, is_trainable=True)
    check_targets(options.lora.targets, [name for name, module in base.named_modules() if _has_matrix(module)])
    torch.manual_seed(seed)  # A is drawn at random, B is zero
    return get_peft_model(base, _lora_config(options.lora))


def open_frozen(model: Path, adapter: Path | None, options: Options) -> nn.Module:
    """A model that is only read, under an adapter or alone."""
    opened = open_base(model, options)
    if adapter is not None:
        from peft import PeftModel

        weights.check_adapter(adapter)
        opened = PeftModel.from_pretrained(opened, adapter)
    return opened.requires_grad_(False)


def add_scalar_head(opened: nn.Module, folder: Path) -> None:
    """A trainable linear map from the last layer's state to one number: that of `folder`, or one of zeros."""
    import torch
    from safetensors.torch import load_file

    made = torch.nn.Linear(opened.config.get_text_config().hidden_size, 1)
    torch.nn.init.zeros_(made.weight)
    torch.nn.init.zeros_(made.bias)
    if (folder / SCALAR_HEAD).is_file():
        made.load_state_dict(load_file(folder / SCALAR_HEAD))
    setattr(opened, SCALAR, made)


def check_targets(targets: Iterable[str], layers: Iterable[str]) -> None:
    """Raises MeritError for a target that names none of `layers` (full names), as PEFT matches them: whole or by their end."""
    layers = sorted(layers)
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name in layers):
            known = sorted({name.rpartition(".")[2] for name in layers} - {""})
            raise MeritError(leaf.unknown("training.lora.targets: layer", target, known))


def _has_matrix(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return weight is not None and weight.ndim == 2


def _lora_config(lora: Lora):
    from peft import LoraConfig

    targets = list(lora.targets) or "all-linear"
    kind = {"use_rslora": lora.rslora, "use_dora": lora.dora}
    return LoraConfig(r=lora.r, lora_alpha=lora.alpha, target_modules=targets, task_type="CAUSAL_LM", **kind)


def save(policy: nn.Module, model: Path, out: Path, base: str = "") -> str:
    """Writes the trained weights into `out`, with the tokenizer if it is a whole model; returns their digest.

    Beside an adapter stands what it was made for: the digest of its `base` model, and how many tokens that knows.
    """
    whole, scalar = not hasattr(policy, "peft_config"), policy._modules.pop(SCALAR, None)
    # PEFT would otherwise look on the hub for the base model, to see whether its vocabulary has grown
    policy.save_pretrained(out, **({} if whole else {"save_embedding_layers": False}))
    (out / "README.md").unlink(missing_ok=True)  # PEFT's empty model card
    if whole:
        copy_tokenizer(model, out)
    else:
        _tidy(out / "adapter_config.json")
        made_for = {"digest": base, "vocabulary": policy.config.get_text_config().vocab_size}
        (out / BASE).write_text(json.dumps(made_for) + "\n")
    if scalar is not None:
        from safetensors.torch import save_file

        save_file({name: tensor.detach().cpu() for name, tensor in scalar.state_dict().items()}, out / SCALAR_HEAD)
        setattr(policy, SCALAR, scalar)
    written = sorted(out.glob("model*.safetensors")) if whole else [out / ADAPTER]  # a large model has several files
    return digest_of(*written, *([out / SCALAR_HEAD] if scalar is not None else []))


def copy_tokenizer(model: Path, out: Path) -> None:
    """What turns text into a model's ids and back, its chat template too."""
    for name in TOKENIZER:
        if (model / name).is_file():
            shutil.copy(model / name, out / name)


def _tidy(config: Path) -> None:
    """PEFT writes a set's order and the base model's path on this machine; neither belongs to the adapter."""
    facts = json.loads(config.read_text())
    if isinstance(facts.get("target_modules"), list):
        facts["target_modules"].sort()
    facts["base_model_name_or_path"] = Path(facts.get("base_model_name_or_path") or "").name
    config.write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n")


def digest_of(*files: Path) -> str:
    """The first 16 hex digits of the SHA-256 of files, one after another."""
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
