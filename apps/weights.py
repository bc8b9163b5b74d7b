"""Weights are read from safetensors and from nothing else: the older formats are pickles, which run whatever they like.

Libraries fall back to those where there is nothing better, so folders are looked at before a library sees them. Reads names
and JSON, no weights.
"""

from __future__ import annotations

import json
from pathlib import Path

from apps.records import MeritError

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")
INDEX = "model.safetensors.index.json"
REMEDY = "save it again with save_pretrained(…, safe_serialization=True) of a library that you trust with it"


def check_model(folder: Path, setting: str = "model") -> None:
    """MeritError where a folder is no Hugging Face model with weights in safetensors. `setting` is what named it."""
    if not (folder / "config.json").is_file():
        raise MeritError(f"{setting}={folder}: no Hugging Face model folder (there is no {folder / 'config.json'})")
    if (folder / "model.safetensors").is_file():
        return
    if not (folder / INDEX).is_file():
        raise MeritError(f"{setting}={folder}: {_instead(folder)}")
    for name in sorted(set(_shards(folder / INDEX, setting))):
        if not name.endswith(".safetensors") or Path(name).name != name:
            raise MeritError(f"{setting}={folder}: its {INDEX} names {name!r}, which is no safetensors file beside it")
        if not (folder / name).is_file():
            raise MeritError(f"{setting}={folder}: {name!r} is missing, which its {INDEX} names")


def check_adapter(folder: Path, setting: str = "adapter") -> None:
    """MeritError where a folder is no adapter in PEFT format with weights in safetensors."""
    if not (folder / "adapter_config.json").is_file():
        raise MeritError(f"{setting}={folder}: no adapter in PEFT format (there is no adapter_config.json)")
    if not (folder / "adapter_model.safetensors").is_file():
        raise MeritError(f"{setting}={folder}: {_instead(folder)}")


def _shards(index: Path, setting: str) -> list[str]:
    try:
        return list(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise MeritError(f"{setting}={index.parent}: its {INDEX} cannot be read ({error})") from error


def _instead(folder: Path) -> str:
    """What to say of a folder without safetensors."""
    found = sorted({file.name for pattern in PICKLES for file in folder.glob(pattern)})
    if not found:
        return "there are no weights in it; safetensors are looked for"
    return (
        f"its weights are in {', '.join(found[:4])}, a format that can hold code and is never opened here, and there are no "
        f"safetensors; {REMEDY}"
    )
