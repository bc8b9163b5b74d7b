"""Trained weights as folders that plain transformers and peft load: an adapter in PEFT format, or a whole model with it merged in.

Safetensors only. What Merit keeps beside a policy to go on from it (optimiser, canary, metrics) stays behind.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from apps.training import policy
from apps.training.options import Options

ADAPTER = (policy.ADAPTER, "adapter_config.json", policy.BASE)


def adapter(source: Path, base: Path, out: Path) -> None:
    """The adapter of `source` with the tokenizer of its base model."""
    for name in ADAPTER:
        if (source / name).is_file():
            shutil.copy(source / name, out / name)
    policy.copy_tokenizer(base, out)


def whole(source: Path, out: Path) -> None:
    """The whole model of `source`, its tokenizer among its files."""
    for file in sorted(source.iterdir()):
        if file.name.startswith(("model", "config.json", "generation_config")) or file.name in policy.TOKENIZER:
            shutil.copy(file, out / file.name)


def merged(source: Path, base: Path, out: Path, dtype: str = "float32") -> None:
    """The base model with the adapter of `source` merged in: added in float32, then kept in `dtype`."""
    import torch

    model = policy.open_policy(base, source, Options(lora=None), 0)
    model.to(getattr(torch, dtype)).save_pretrained(out)
    policy.copy_tokenizer(base, out)
