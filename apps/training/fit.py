"""One policy trained on its agent's rows: the work of the stage `train`, by one process or by each of several ranks.

Every rank goes through all of it, since weights that are divided among ranks are fetched by all together; rank 0 alone
writes. Folders in, one folder out.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from apps import leaf
from apps.platform import devices
from apps.platform.mpi import World
from apps.records import MeritError
from apps.training import canary, policy
from apps.training.options import Options
from apps.training.rows import Rows
from apps.training.trainer import Trainer

STATE = "optimiser.safetensors"
DRIFT_ROWS = 64  # on which the KL to the base model is measured after training


def fit(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any], world: World) -> dict[str, Any]:
    """Trains and saves; returns what the stage says of its work, which on other ranks than 0 lacks the digest."""
    import torch

    started = time.perf_counter()
    chosen = devices.settled(Options(**options["training"]), options.get("device", "cpu"))
    model = inputs["start"][0] if "start" in inputs else Path(options["model"])
    agent = options["agent"]
    rows = [Rows.load(folder / f"{agent}.npz") for folder in inputs["batch"]]
    module = leaf.find("training/objectives", options["objective"]["name"])
    tuned = leaf.options("training/objectives", options["objective"])
    needs = module.needs(tuned) if hasattr(module, "needs") else module.NEEDS
    trainer = start(model, before(inputs, agent), chosen, options, world, needs, teacher(model, inputs, agent, chosen))
    torch.manual_seed(options["seed"])
    history = []
    with open(out / "metrics.jsonl" if world.rank == 0 else os.devnull, "w") as log:
        for part in rows:
            for metrics in trainer.fit(part, lambda b: module.loss(b, tuned), needs, options["seed"]):
                history.append(metrics)
                log.write(json.dumps(metrics) + "\n")
                log.flush()
    digest = save(trainer, model, out)
    if chosen.lora is not None and (spoken := canary_rows(rows, inputs)):
        canary.write(out, spoken, trainer.score, world.rank == 0)
    return {
        "agent": agent,
        "digest": digest,
        "steps": len(history),
        "rows": sum(map(len, rows)),
        "tokens": int(sum(r.lengths.sum() for r in rows)) * chosen.epochs,
        "seconds": time.perf_counter() - started,
        "last": history[-1] if history else {},
        "kl": drift(trainer, rows) if chosen.lora is not None else None,
        "loss": float(np.mean([m["loss"] for m in history[-50:]])) if history else None,
    }


def before(inputs: Mapping[str, Sequence[Path]], agent: str) -> Path | None:
    """The adapter that training goes on from; None where the agent has none yet."""
    folder = inputs["policies"][0] / agent if "policies" in inputs else None
    return folder if folder and (folder / policy.ADAPTER).is_file() else None


def teacher(model: Path, inputs: Mapping[str, Sequence[Path]], agent: str, chosen: Options):
    """The teacher's weights, which stay as they are: a whole model, or the agent's adapter of a team; None without one."""
    if "teacher" not in inputs:
        return None
    folder = inputs["teacher"][0]
    if (folder / "config.json").is_file():
        return policy.open_base(folder, chosen)
    found = next((f for f in (folder / agent, folder) if (f / policy.ADAPTER).is_file()), None)
    if found is None:
        raise MeritError(f"teacher={folder}: neither a whole model nor a team in which {agent!r} has an adapter")
    return policy.open_policy(model, found, chosen, 0).requires_grad_(False)


def start(
    model: Path,
    adapter: Path | None,
    chosen: Options,
    options: Mapping[str, Any],
    world: World,
    needs: Collection[str] = (),
    taught_by: Any = None,
) -> Trainer:
    """The trainer, as an earlier round left it where there was one."""
    from safetensors.torch import load_file

    opened = policy.open_policy(model, adapter, chosen, options["seed"])
    if {"scores", "values"} & set(needs):
        policy.add_scalar_head(opened, adapter or model)
    trainer = Trainer(opened, chosen, options.get("device", "cpu"), world, taught_by)
    if adapter and (adapter / STATE).is_file():
        trainer.restore(load_file(adapter / STATE))
    return trainer


def save(trainer: Trainer, model: Path, out: Path) -> str:
    """Rank 0 writes the weights, and beside an adapter the optimiser's state; returns the weights' digest there."""
    from safetensors.torch import save_file

    digest, first = "", trainer.world.rank == 0
    with trainer.ranks.gathered():
        if first:
            digest = policy.save(trainer.model, model, out)
    if trainer.options.lora is not None:
        state = trainer.state()
        if first:
            save_file(state, out / STATE)
    return digest


def drift(trainer: Trainer, rows: Sequence[Rows]) -> float | None:
    """KL of the trained policy to the base model, nats a token: k3 on the first rows, which an earlier policy sampled."""
    first = next((part.first(DRIFT_ROWS) for part in rows if len(part)), None)
    if first is None:
        return None
    trained = np.concatenate(trainer.score(first))
    with trainer.model.disable_adapter():
        d = np.concatenate(trainer.score(first)) - trained
    return float(np.mean(np.exp(d) - d - 1))


def canary_rows(rows: Sequence[Rows], inputs: Mapping[str, Sequence[Path]]) -> Rows | None:
    """Rows for the canary: this agent's own, or another agent's where it had none; None where nobody had any."""
    for candidate in [*rows, *(Rows.load(f) for folder in inputs["batch"] for f in sorted(folder.glob("*.npz")))]:
        if len(candidate):
            return candidate
    return None
