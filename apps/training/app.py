"""The training stages, files in and files out: `batch` builds every agent's rows, `train` fits one policy."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from apps import leaf
from apps.credit import results
from apps.credit.turns import valued
from apps.inference import traces
from apps.reward import verdicts
from apps.training import build, canary
from apps.training.rows import Rows
from apps.training.trainer import Options, Trainer, micro_batches, pad

STATE = "optimiser.safetensors"
DRIFT_ROWS = 64  # on which the KL to the base model is measured after training


def batch(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """Rows of every agent: `<agent>.npz`. Inputs `rollout`, `grade` and `assign` are shards in the same order."""
    shards = [traces.read(shard / traces.FILE) for shard in inputs["rollout"]]
    graded = [g for folder, shard in zip(inputs["grade"], shards, strict=True) for g in verdicts.read(folder, shard)]
    credit = [c for shard in inputs["assign"] for c in results.read(shard)]
    turns = valued([g.trace for g in graded], credit, [g.verdict.score for g in graded])
    module, chosen = (
        leaf.find("training/advantages", options["advantage"]["name"]),
        leaf.options("training/advantages", options["advantage"]),
    )
    needs = leaf.find("training/objectives", options["objective"]["name"]).NEEDS
    facts = {}
    for agent in options["agents"]:
        rows = build.rows_of(agent, turns, lambda t: module.advantages(t, chosen), needs)
        rows.save(out / f"{agent}.npz")
        spoken = sum(turn.agent == agent for turn, _ in turns)
        facts[agent] = {"turns": spoken, "rows": len(rows)}
    return facts


def train(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """One policy trained on the rows of `batch`, from where `policies` (or a model in `start`) left it.

    An agent without rows keeps its adapter as it is.
    """
    import torch
    from safetensors.torch import load_file, save_file

    from apps.training import policy

    started = time.perf_counter()
    chosen = Options(**options["training"])
    model = inputs["start"][0] if "start" in inputs else Path(options["model"])
    agent = options["agent"]
    before = inputs["policies"][0] / agent if "policies" in inputs else None
    before = before if before and (before / policy.ADAPTER).is_file() else None
    rows = [Rows.load(folder / f"{agent}.npz") for folder in inputs["batch"]]
    opened = policy.open_policy(model, before, chosen, options["seed"])
    trainer = Trainer(opened, chosen, options.get("device", "cpu"))
    if before and (before / STATE).is_file():
        trainer.restore(load_file(before / STATE))
    module = leaf.find("training/objectives", options["objective"]["name"])
    tuned = leaf.options("training/objectives", options["objective"])
    needs = module.needs(tuned) if hasattr(module, "needs") else module.NEEDS
    torch.manual_seed(options["seed"])
    history = []
    with open(out / "metrics.jsonl", "w") as log:
        for part in rows:
            for metrics in trainer.fit(part, lambda b: module.loss(b, tuned), needs, options["seed"]):
                history.append(metrics)
                log.write(json.dumps(metrics) + "\n")
                log.flush()
    digest = policy.save(opened, model, out)
    if chosen.lora is not None:
        save_file(trainer.state(), out / STATE)
        if spoken := canary_rows(rows, inputs):
            canary.write(out, spoken, lambda first: score(trainer, first))
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


def drift(trainer: Trainer, rows: Sequence[Rows]) -> float | None:
    """KL of the trained policy to the base model, nats a token: k3 on the first rows, which an earlier policy sampled."""
    first = next((part.first(DRIFT_ROWS) for part in rows if len(part)), None)
    if first is None:
        return None
    trained = np.concatenate(score(trainer, first))
    with trainer.model.disable_adapter():
        d = np.concatenate(score(trainer, first)) - trained
    return float(np.mean(np.exp(d) - d - 1))


def canary_rows(rows: Sequence[Rows], inputs: Mapping[str, Sequence[Path]]) -> Rows | None:
    """Rows for the canary: this agent's own, or another agent's where it had none; None where nobody had any."""
    for candidate in [*rows, *(Rows.load(f) for folder in inputs["batch"] for f in sorted(folder.glob("*.npz")))]:
        if len(candidate):
            return candidate
    return None


def score(trainer: Trainer, rows: Rows) -> list[np.ndarray]:
    """The trainer's log-probabilities of each completion, at temperature 1, in float32 throughout."""
    torch = trainer.torch
    trainer.model.eval()
    scores: list[np.ndarray] = [np.zeros(0, np.float32)] * len(rows)
    with torch.no_grad():
        for micro in micro_batches(rows, np.arange(len(rows)), trainer.options.micro_tokens):
            ids, mask, where = pad(rows, micro, torch, trainer.device)
            out = trainer.logprobs(ids, mask, where, 1.0, exact=True)
            for row, i in zip(out, micro, strict=True):
                scores[i] = row[: len(rows.completions[i])].cpu().numpy()
    return scores
