"""The training stages, files in and files out: `batch` builds every agent's rows, `train` fits one policy."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from apps import leaf, policies
from apps.credit import results
from apps.credit.turns import Worth, valued
from apps.inference import traces
from apps.platform import mpi
from apps.reward import verdicts
from apps.training import build, fit, overlong
from apps.training.main import FACTS
from apps.training.options import Options


def batch(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """Rows of every agent: `<agent>.npz`. Inputs `rollout`, `grade` and `assign` are shards in the same order.

    What counts is what the policies of the input `policies` spoke: guests from earlier rounds are nobody's. Agents that
    `share` a policy have their rows together, under the name of whose it is.
    """
    shards = [traces.read(shard / traces.FILE) for shard in inputs["rollout"]]
    graded = [g for folder, shard in zip(inputs["grade"], shards, strict=True) for g in verdicts.read(folder, shard)]
    credit = [c for shard in inputs["assign"] for c in results.read(shard)]
    turns = spoken_by(inputs, valued([g.trace for g in graded], credit, [g.verdict.score for g in graded]))
    turns = overlong.shaped(turns, options.get("overlong", 0))
    module, chosen = (
        leaf.find("training/advantages", options["advantage"]["name"]),
        leaf.options("training/advantages", options["advantage"]),
    )
    needs = leaf.find("training/objectives", options["objective"]["name"]).NEEDS
    facts = {}
    for agent in options["agents"]:
        together = {agent, *(other for other, owner in options.get("share", {}).items() if owner == agent)}
        rows = build.rows_of(together, turns, lambda t: module.advantages(t, chosen), needs)
        rows.save(out / f"{agent}.npz")
        spoken = sum(turn.agent in together for turn, _ in turns)
        facts[agent] = {"turns": spoken, "rows": len(rows)}
    return facts


def spoken_by(inputs: Mapping[str, Sequence[Path]], turns: Sequence[Worth]) -> list[Worth]:
    """The turns that the team of `policies` spoke; all of them where no team is given."""
    if "policies" not in inputs:
        return list(turns)
    now = {agent: row.digest for agent, row in policies.rows(inputs["policies"][0]).items()}
    return [(turn, row) for turn, row in turns if turn.policy == now[turn.agent]]


def train(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """One policy trained on the rows of `batch`, from where `policies` (or a model in `start`) left it.

    An agent without rows keeps its adapter as it is. Several ranks, and ZeRO, have processes of their own.
    """
    chosen = Options(**options["training"])
    if chosen.ranks > 1 or chosen.parallel.startswith("zero"):
        return by_ranks(out, inputs, options, chosen.ranks)
    return fit.fit(out, inputs, options, mpi.World())


def by_ranks(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any], ranks: int) -> dict[str, Any]:
    """The same by `main.py`, in as many processes; their spec and output are gone when they have ended well."""
    beside = out / "ranks"
    beside.mkdir()
    given = {"out": str(out), "inputs": {k: [str(f) for f in v] for k, v in inputs.items()}, "options": dict(options)}
    (beside / "spec.json").write_text(json.dumps(given), encoding="utf-8")
    mpi.launch(options.get("launcher"), ranks, "apps.training.main", beside / "spec.json", options.get("threads", 1))
    shutil.rmtree(beside)
    return json.loads((out / FACTS).read_text(encoding="utf-8"))
