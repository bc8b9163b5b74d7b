"""One policy trained on its agent's rows: the work of the stage `train`, by one process or by each of several ranks.

Every rank goes through all of it, since weights that are divided among ranks are fetched by all together; rank 0 alone
writes. Folders in, one folder out.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from apps import leaf, policies, weights
from apps.platform import devices, requests
from apps.platform.mpi import World
from apps.records import MeritError
from apps.training import canary, checkpoint, course, keeper, policy
from apps.training.checkpoint import Checkpoint
from apps.training.faults import NotFinite
from apps.training.keeper import Keeper
from apps.training.options import Options
from apps.training.rows import Rows
from apps.training.trainer import Trainer

STATE = "optimiser.safetensors"
METRICS = "metrics.jsonl"
DRIFT_ROWS = 64  # on which the KL to the base model is measured after training


def fit(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any], world: World) -> dict[str, Any]:
    """Trains and saves; returns what the stage says of its work, which on other ranks than 0 lacks the digest.

    A task that was cut short goes on from its last checkpoint. Where a step is no number the last good policy is saved.
    """
    place = Path(options["partial"]) if options.get("partial") else None
    with requests.heard() as asked, checkpoint.held(place, world.rank == 0) as folder:
        return _fit(out, inputs, options, world, Keeper(folder, options.get("checkpoint_minutes", 0), world, asked))


def _fit(
    out: Path,
    inputs: Mapping[str, Sequence[Path]],
    options: Mapping[str, Any],
    world: World,
    kept: Keeper,
) -> dict[str, Any]:
    chosen = devices.settled(Options(**options["training"]), options.get("device", "cpu"))
    agent = options["agent"]
    model = origin(inputs, agent, options, chosen)
    rows = [rows_of(folder, agent) for folder in inputs["batch"]]
    module = leaf.find("training/objectives", options["objective"]["name"])
    tuned = leaf.options("training/objectives", options["objective"])
    needs = module.needs(tuned) if hasattr(module, "needs") else module.NEEDS
    taught_by = teacher(model, inputs, agent, chosen, options.get("places", {}))
    trainer = start(model, before(inputs, agent), chosen, options, world, needs, taught_by, kept.found)
    trainer.course = course.read(inputs["batch"][0])
    history = []
    with open(out / METRICS if world.rank == 0 else os.devnull, "w") as log:
        try:
            for metrics in kept.steps(trainer, rows, lambda b: module.loss(b, tuned), needs, options["seed"]):
                history.append(metrics)
                log.write(json.dumps(metrics) + "\n")
                log.flush()
        except NotFinite as error:
            raise MeritError(f"{error}. {rescue(trainer, model, out, kept)}") from error
    speaks = chosen.lora is not None or "policies" in inputs  # a model that is made from text is nobody's policy yet
    goes_on = speaks or options.get("keep_state", False)
    digest = save(trainer, model, out, options.get("base_model", ""), goes_on)
    if speaks and (spoken := canary_rows(rows, inputs, trainer.forward.vocabulary)):
        canary.write(out, spoken, trainer.score, world.rank == 0)
    return {
        "agent": agent,
        "digest": digest,
        "steps": len(history),
        "rows": sum(map(len, rows)),
        "tokens": int(sum(r.lengths.sum() for r in rows)) * chosen.epochs,
        "seconds": kept.seconds,
        "last": history[-1] if history else {},
        "kl": drift(trainer, rows) if chosen.lora is not None else None,
        "loss": float(np.mean([m["loss"] for m in history[-50:]])) if history else None,
    }


def origin(inputs: Mapping[str, Sequence[Path]], agent: str, options: Mapping[str, Any], chosen: Options) -> Path:
    """The whole model that training starts from: what the agent is already, the run's from `start`, or its base model."""
    own = inputs["policies"][0] / agent if "policies" in inputs else None
    if own and (own / policies.WHOLE).is_file():
        if chosen.lora is not None:
            raise MeritError(
                f"{agent} is a whole model since an earlier stage of this run, and training.lora asks for an adapter; set "
                "training.lora=null here too, or begin another run with model=FOLDER, the exported model"
            )
        return own
    place = options.get("places", {}).get(options.get("base_model", ""), options["model"])
    return inputs["start"][0] if "start" in inputs else Path(place)


def rows_of(folder: Path, agent: str) -> Rows:
    """An agent's rows in a batch; MeritError where it has no file for the agent."""
    if not (folder / f"{agent}.npz").is_file():
        raise MeritError(leaf.unknown("batch: agent", agent, [file.stem for file in sorted(folder.glob("*.npz"))]))
    return Rows.load(folder / f"{agent}.npz")


def before(inputs: Mapping[str, Sequence[Path]], agent: str) -> Path | None:
    """The adapter that training goes on from; None where the agent has none yet."""
    folder = inputs["policies"][0] / agent if "policies" in inputs else None
    if folder and (folder / "adapter_config.json").is_file():
        weights.check_adapter(folder, "policies")  # or one in a pickle would count as none
    return folder if folder and (folder / policy.ADAPTER).is_file() else None


def teacher(model: Path, inputs: Mapping[str, Sequence[Path]], agent: str, chosen: Options, places: Mapping[str, str]):
    """The teacher's weights, which stay as they are: a whole model, or who speaks for the agent in a team; None without one."""
    if "teacher" not in inputs:
        return None
    folder = inputs["teacher"][0]
    if not (folder / policies.FILE).is_file():
        return policy.open_base(folder, chosen).requires_grad_(False)
    who = policies.read(folder, places)[agent]
    return policy.open_frozen(
        Path(who.model) if who.model else model, Path(who.adapter) if who.adapter else None, chosen
    )


def start(
    model: Path,
    adapter: Path | None,
    chosen: Options,
    options: Mapping[str, Any],
    world: World,
    needs: Collection[str] = (),
    taught_by: Any = None,
    found: Checkpoint | None = None,
) -> Trainer:
    """The trainer, as an earlier round left it where there was one, or as a checkpoint `found` of this task has it."""
    from safetensors.torch import load_file

    device = options.get("device", "cpu")
    opened = policy.open_policy(model, adapter, chosen, options["seed"], device)
    if {"scores", "values"} & set(needs):
        policy.add_scalar_head(opened, adapter or model)
    if found:
        found.lay_over(opened)
    trainer = Trainer(opened, chosen, device, world, taught_by)
    left = model if chosen.lora is None else adapter
    if found:
        keeper.restore(trainer, found)
    elif left and (left / STATE).is_file():
        trainer.restore(load_file(left / STATE))
    return trainer


def save(trainer: Trainer, model: Path, out: Path, base: str = "", goes_on: bool = True) -> str:
    """Rank 0 writes the weights, and the optimiser's state beside those that it goes on with; returns the weights' digest there."""
    from safetensors.torch import save_file

    digest, first = "", trainer.world.rank == 0
    with trainer.ranks.gathered():
        if first:
            digest = policy.save(trainer.model, model, out, base)
    if goes_on:
        state = trainer.state()
        if first:
            save_file(state, out / STATE)
    return digest


def rescue(trainer: Trainer, model: Path, out: Path, kept: Keeper) -> str:
    """Saves the policy as the last good step left it, beside the task's checkpoints; a sentence that says where."""
    folder = (kept.folder or out) / checkpoint.LAST_GOOD
    if trainer.world.rank == 0:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        if (out / METRICS).is_file():
            shutil.copy(out / METRICS, folder / METRICS)
    save(trainer, model, folder)
    return f"The policy as it was after step {trainer.steps}, the last good one, is kept in {folder}"


def drift(trainer: Trainer, rows: Sequence[Rows]) -> float | None:
    """KL of the trained policy to the base model, nats a token: k3 on the first rows, which an earlier policy sampled."""
    first = next((part.first(DRIFT_ROWS) for part in rows if len(part)), None)
    if first is None:
        return None
    first = replace(first, kept=())  # under the whole distribution
    trained = np.concatenate(trainer.score(first))
    with trainer.model.disable_adapter():
        d = np.concatenate(trainer.score(first)) - trained
    return float(np.mean(np.exp(d) - d - 1))


def canary_rows(rows: Sequence[Rows], inputs: Mapping[str, Sequence[Path]], vocabulary: int) -> Rows | None:
    """Rows for the canary: this agent's own, or another agent's where it had none; None where nobody had any.

    Another agent may have a model with other words: rows with a token that is none of this one's are passed over.
    """
    for candidate in [*rows, *(Rows.load(f) for folder in inputs["batch"] for f in sorted(folder.glob("*.npz")))]:
        if len(candidate) and candidate.highest < vocabulary:
            return candidate
    return None
