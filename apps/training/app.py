"""The training stages, files in and files out: `batch` builds every agent's rows, `train` fits one policy.

`values` and `reference` say what a value model, or the base model, makes of the turns of a shard: for advantages that look
at tokens. `merge` adds an adapter to its model.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from apps import leaf, policies
from apps.credit import results
from apps.credit.turns import Worth, valued
from apps.inference import traces
from apps.platform import devices, mpi, nearby
from apps.reward import verdicts
from apps.training import build, fit, foresee, merging, overlong
from apps.training.main import FACTS
from apps.training.options import Options
from apps.training.trainer import Trainer

TOKENS = ("values", "reference")  # inputs that tell of single tokens


def batch(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """Rows of every agent: `<agent>.npz`, and of every value model. All inputs but one are shards in the same order:

    `rollout`, `grade` and `assign`; `values` and `reference` where the advantage wants them. What counts is what the policies
    of the input `policies` spoke: guests from earlier rounds are nobody's. Agents that `share` a policy have their rows
    together, under the name of whose it is.
    """
    shards = [traces.read(shard / traces.FILE) for shard in inputs["rollout"]]
    graded = [g for folder, shard in zip(inputs["grade"], shards, strict=True) for g in verdicts.read(folder, shard)]
    credit = [c for shard in inputs["assign"] for c in results.read(shard)]
    played = [g.trace for g in graded]
    turns = valued(played, credit, [g.verdict.score for g in graded])
    turns = overlong.shaped(turns, options.get("overlong", 0))
    module, chosen = (
        leaf.find("training/advantages", options["advantage"]["name"]),
        leaf.options("training/advantages", options["advantage"]),
    )
    if known := {k: foresee.read(inputs[k], [turn for turn, _ in turns]) for k in TOKENS if k in inputs}:
        turns = foresee.told(turns, played, known.get("values"), known.get("reference"))
    turns = spoken_by(inputs, turns)
    needs = leaf.find("training/objectives", options["objective"]["name"]).NEEDS
    facts = {}
    for agent in options["agents"]:
        together = {agent, *(other for other, owner in options.get("share", {}).items() if owner == agent)}
        rows = build.rows_of(together, turns, lambda t: module.advantages(t, chosen), needs)
        rows.save(out / f"{agent}.npz")
        spoken = sum(turn.agent in together for turn, _ in turns)
        facts[agent] = {"turns": spoken, "rows": len(rows)}
    if "values" in known:
        context = foresee.context_of(model_of(inputs, options))
        returns = module.returns([row for _, row in turns], chosen)
        facts |= lessons(out, turns, foresee.spoken(played), returns, options["learners"], options["view"], context)
    return facts


def spoken_by(inputs: Mapping[str, Sequence[Path]], turns: Sequence[Worth]) -> list[Worth]:
    """The turns that the team of `policies` spoke; all of them where no team is given."""
    if "policies" not in inputs:
        return list(turns)
    now = {agent: row.digest for agent, row in policies.rows(inputs["policies"][0]).items()}
    return [(turn, row) for turn, row in turns if turn.policy == now[turn.agent]]


def lessons(
    out: Path,
    turns: Sequence[Worth],
    said: Sequence[foresee.Spoken],
    returns: Sequence[np.ndarray],
    learners: Sequence[str],
    view: foresee.View,
    context: float,
) -> dict[str, Any]:
    """Writes the rows that value models are taught by; says how much of the returns' variance they had foreseen."""
    before, facts = {id(turn): earlier for turn, earlier in said}, {}
    for name in learners:
        mine = [i for i, (turn, _) in enumerate(turns) if foresee.learner(turn.agent, view) == name]
        taught = {"targets": [returns[i] for i in mine], "values": [turns[i][1].tokens.values for i in mine]}
        read = [(turns[i][0], before[id(turns[i][0])]) for i in mine]
        foresee.rows_of(read, view, context, **taught).save(out / f"{name}.npz")
        facts[name] = {"turns": len(mine), "rows": len(mine), "explained": explained(**taught)}
    return facts


def explained(targets: Sequence[np.ndarray], values: Sequence[np.ndarray]) -> float | None:
    """1 − Var(R − V)/Var(R) over tokens: 1 for a perfect value model, 0 for a constant; None without variance."""
    told, expected = (np.concatenate([*rows, np.zeros(0)]) for rows in (targets, values))
    spread = float(np.var(told)) if len(told) else 0.0
    return 1 - float(np.var(told - expected)) / spread if spread else None


def values(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """What the value models of the folder `policies` expect before each token of the shard `rollout`.

    One that was not trained yet has a head of zeros and expects 0.
    """
    said, view = foresee.spoken(traces.read(inputs["rollout"][0] / traces.FILE)), options["view"]
    found = [np.zeros(len(turn.completion_ids), np.float32) for turn, _ in said]
    for name, learnt in policies.read(inputs["policies"][0]).items():
        mine = [i for i, (turn, _) in enumerate(said) if foresee.learner(turn.agent, view) == name]
        if learnt.adapter and mine:
            trainer = reader(inputs, options, Path(learnt.adapter))
            context = foresee.context_of(model_of(inputs, options))
            rows = foresee.rows_of([said[i] for i in mine], view, context)
            for i, row in zip(mine, foresee.expectations(trainer, rows), strict=True):
                found[i] = row
    foresee.write(out, found)
    return {"turns": len(said), "mean": float(np.mean(np.concatenate([*found, [0.0]])))}


def reference(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """The base model's log-probabilities of the turns of the shard `rollout`, at the sampler's temperature."""
    said = foresee.spoken(traces.read(inputs["rollout"][0] / traces.FILE))
    found: list[np.ndarray] = []
    if said:
        trainer = reader(inputs, options, None)
        rows = foresee.rows_of(said, "own", trainer.context)  # as they were sampled: nothing is cut
        found = trainer.score(rows, rows.temperature, exact=False)
    foresee.write(out, found)
    apart = [turn.logprobs - row for (turn, _), row in zip(said, found, strict=True)]
    return {"turns": len(said), "divergence": float(np.mean(np.concatenate([*apart, [0.0]])))}


def model_of(inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> Path:
    """The model that all policies sit on."""
    return inputs["start"][0] if "start" in inputs else Path(options["model"])


def reader(inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any], adapter: Path | None) -> Trainer:
    """A model that reads and is not trained: with an adapter and its scalar head, or the base model alone."""
    lora = {} if adapter else {"lora": None}
    chosen = devices.settled(Options(**options["reading"], **lora), options.get("device", "cpu"))
    return fit.start(
        model_of(inputs, options), adapter, chosen, {**options, "seed": 0}, mpi.World(), {"values"} if adapter else ()
    )


def train(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """One policy trained on the rows of `batch`, from where `policies` (or a model in `start`) left it.

    An agent without rows keeps its adapter as it is. Several ranks, and ZeRO, have processes of their own.
    """
    chosen = Options(**options["training"])
    if chosen.ranks > 1 or chosen.parallel.startswith("zero"):
        return by_ranks(out, inputs, options, chosen.ranks)
    return fit.fit(out, inputs, nearby.models(options), mpi.World())


def merge(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """The adapter of `train` added to the model that it was trained on (`start`, else the run's): what later stages start from."""
    return {"digest": merging.merge(model_of(inputs, options), inputs["train"][0], out)}


def by_ranks(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any], ranks: int) -> dict[str, Any]:
    """The same by `main.py`, in as many processes; their spec and output are gone when they have ended well."""
    beside = out / "ranks"
    beside.mkdir()
    given = {"out": str(out), "inputs": {k: [str(f) for f in v] for k, v in inputs.items()}, "options": dict(options)}
    (beside / "spec.json").write_text(json.dumps(given), encoding="utf-8")
    where = {"threads": options.get("threads", 1), "hostfile": options.get("hostfile")}
    mpi.launch(options.get("launcher"), ranks, "apps.training.main", beside / "spec.json", **where)
    shutil.rmtree(beside)
    return json.loads((out / FACTS).read_text(encoding="utf-8"))
