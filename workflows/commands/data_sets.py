"""Writes the data sets that a finished run's credit makes: JSONL for each agent, and a card. Not a workflow.

All is read from the store, so it needs no model, and the same words give the same bytes. The folder is made aside and
renamed: it is whole or not there.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

from apps import dormant, leaf
from apps.credit import datasets
from apps.records import MeritError
from workflows.commands import inspect_run
from workflows.commands.inspect_run import Shard

CARD = "README.md"
HINTS = {
    "sft": "no turn is worth more than the threshold (see --threshold)",
    "pairs": "no two turns in one state are so far apart (see --margin); plays have turns in one state where "
    "rollout.plan=tree, or where the credit method samples turns again (counterfactual)",
    "kto": "every turn is at the threshold (see --threshold and --margin)",
    "rl": "no agent spoke",
}
COLUMNS = """\
The columns that trainers read are TRL's. Beside them stand, for each turn: `value`, its credit, and `error`, the standard
error of that (0: not estimated); `outcome`, the score of the team's answer; `agent`, `task`, `split`, `round`, `trace`
and `path`, where it was said; `policy`, the digest of the adapter that spoke. Of a pair each of the two has its value and
error; in pairs whose `source` is `replays` these are the mean score of what came of the words, not credit. A turn that
several traces share stands once, under the first of them. Texts are without special tokens; `prompt` is as the model saw it,
chat template included.
"""


def write(run: Path, out: Path, kind: str, rule: datasets.Rule, agent: str = "", when: str = "all") -> Counter[str]:
    """The rows of one kind as `out`/AGENT.jsonl with a card; gives how many rows each agent has."""
    if kind not in datasets.KINDS:
        raise MeritError(leaf.unknown("--kind", kind, list(datasets.KINDS)))
    shards, out = inspect_run.shards(run, when), out.resolve()
    aside = out.with_name(out.name + ".part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        counts = _write_rows(aside, shards, kind, rule, agent)
        if not counts:
            raise MeritError(f"{run.name}, --when {when}: no rows of --kind {kind}: {HINTS[kind]}")
        (aside / CARD).write_text(card(run, shards, kind, rule, when, counts), encoding="utf-8")
        _put(aside, out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return counts


def rows(shard: Shard, graded: Sequence[Any], kind: str, rule: datasets.Rule) -> Iterator[dict[str, Any]]:
    """The rows of a shard, with split and round. What was played in a round is of the split train, or it is refused."""
    split = {name: task.split for name, task in shard.tasks().items()}
    for row in datasets.rows(kind, graded, shard.credit(), shard.findings() if kind == "pairs" else {}, rule):
        if shard.round and split[row["task"]] != "train":
            raise MeritError(
                f"round {shard.round}: task {row['task']!r} is of the split {split[row['task']]}, not train"
            )
        yield row | {"split": split[row["task"]], "round": shard.round}


def card(run: Path, shards: Sequence[Shard], kind: str, rule: datasets.Rule, when: str, counts: Counter[str]) -> str:
    """The data card; to Hugging Face's `load_dataset(FOLDER, AGENT)` its head says which file is whose."""
    made = [dormant.manifest(shard.place["assign"][0]) for shard in shards]
    options = made[0]["record"]["options"]
    facts = {
        "run": run.resolve().name,
        "played": f"in round {when}"
        if when.isdigit()
        else {"all": "in all training rounds"}.get(when, f"{when} training"),
        "splits": ", ".join(sorted({task.split for shard in shards for task in shard.tasks().values()})),
        **{name: f"`{json.dumps(options[name])}`" for name in ("topology", "credit")},
        "threshold": f"{rule.threshold:g}",
        "margin": f"{rule.margin:g}",
        "from the artifacts": ", ".join(f"`{m['stage']} {m['key']}`" for m in made),
    }
    head = [f"- config_name: {agent}\n  data_files: {agent}.jsonl" for agent in sorted(counts)]
    table = [f"| {agent} | {counts[agent]} |" for agent in sorted(counts)]
    lines = ["---", "configs:", *head, "---", "", f"# {kind}: the turns of a team by their credit", ""]
    lines += [*(f"- {name}: {fact}" for name, fact in facts.items()), ""]
    return "\n".join([*lines, "| agent | rows |", "|---|---:|", *table, "", COLUMNS])


def _write_rows(aside: Path, shards: Sequence[Shard], kind: str, rule: datasets.Rule, agent: str) -> Counter[str]:
    counts: Counter[str] = Counter()
    speakers: set[str] = set()
    with ExitStack() as stack:
        files: dict[str, TextIO] = {}
        for shard in shards:
            graded = shard.graded()
            speakers |= {turn.agent for g in graded for turn in g.trace.turns}
            for row in rows(shard, graded, kind, rule):
                name = row["agent"]
                if agent in ("", name):
                    if name not in files:
                        files[name] = stack.enter_context(open(aside / f"{name}.jsonl", "w", encoding="ascii"))
                    files[name].write(json.dumps(row, allow_nan=False) + "\n")
                    counts[name] += 1
    if agent and agent not in speakers:
        raise MeritError(leaf.unknown("--agent", agent, sorted(speakers)))
    return counts


def _put(aside: Path, out: Path) -> None:
    """Renames the folder; what is there already has to be the very same."""
    if not out.exists():
        aside.rename(out)
    elif _files(aside) != _files(out) or any((aside / f).read_bytes() != (out / f).read_bytes() for f in _files(aside)):
        raise MeritError(f"--out {out}: something else is there already; name another folder, or remove it first")


def _files(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
