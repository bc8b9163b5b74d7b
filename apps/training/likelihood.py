"""The stage `likelihood`: how likely a policy finds held-out text, row by row, so that two policies can be compared in pairs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from apps.platform import devices
from apps.training import policy
from apps.training.options import Options
from apps.training.rows import Rows

FILE = "likelihood.json"
HELD_OUT = "held_out"  # folder of a batch, with the rows of each domain that nobody learns from


def likelihood(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """Losses on the held-out rows of `batch`, by domain, nats a token.

    The policy is what `train` made (an adapter, or a whole model), else `start`, else the run's own model.
    """
    from apps.training.trainer import Trainer

    device = options.get("device", "cpu")
    chosen = devices.settled(Options(**options["training"]), device)
    chosen = chosen.model_copy(update={"parallel": "single", "ranks": 1, "offload": False})
    model, adapter = opened(inputs, options)
    chosen = chosen if adapter else chosen.model_copy(update={"lora": None})
    trainer = Trainer(policy.open_policy(model, adapter, chosen, 0, device), chosen, device)
    found = {
        file.stem: figures(rows, trainer.score(rows))
        for file in sorted((inputs["batch"][0] / HELD_OUT).glob("*.npz"))
        if len(rows := Rows.load(file))
    }
    (out / FILE).write_text(json.dumps(found) + "\n", encoding="utf-8")
    return {"losses": {name: figure["loss"] for name, figure in found.items()}}


def opened(inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> tuple[Path, Path | None]:
    """(folder of the whole model, folder of the adapter on it)."""
    trained = inputs["train"][0] if "train" in inputs else None
    if trained and (trained / "config.json").is_file():
        return trained, None
    return (inputs["start"][0] if "start" in inputs else Path(options["model"])), trained


def figures(rows: Rows, logprobs: Sequence[np.ndarray]) -> dict[str, Any]:
    """The mean over all own tokens, and of each row [nats in all, own tokens]. A token that nothing precedes counts for nothing."""
    parts = []
    for i, said in enumerate(logprobs):
        own = rows.own(i).copy()
        own[:1] *= len(rows.prompts[i]) > 0
        parts.append([-float((said * own).sum(dtype=np.float64)), int(own.sum())])
    tokens = sum(count for _, count in parts)
    return {"loss": sum(nats for nats, _ in parts) / max(1, tokens), "tokens": tokens, "rows": parts}


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """What the stage wrote: {domain: {"loss", "tokens", "rows"}}."""
    return json.loads((folder / FILE).read_text(encoding="utf-8"))
