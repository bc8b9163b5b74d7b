"""The stages of a process reward model: `step_labels` makes the rows it is trained on, `appraise` says how good it is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from apps import leaf
from apps.credit import app as credit_app
from apps.credit import prefixes, process_reward, results
from apps.credit.results import Findings
from apps.inference import chat
from apps.records import Group
from apps.reward_model import figures, labels

AGENT = "reward_model"  # whose rows the stage `train` is told to read
SUMMARY = "summary.json"


def step_labels(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """Rows for `train`, from the plays that went on from each step (`replay`), shard by shard."""
    from transformers import AutoTokenizer

    reading, chosen = leaf.options("credit", options["credit"]), labels.Options(**options["labels"])
    tokenizer = AutoTokenizer.from_pretrained(options["model"], local_files_only=True)

    def prompt(text: str) -> np.ndarray:
        return chat.encoded(tokenizer, chat.rendered(tokenizer, "", text))

    groups = list(_groups(inputs, "replay", options))
    measured = [(group, _measured(group, known, options)) for group, known in groups]
    if reading.by == "head":
        played = [play for given in measured for play in labels.plays(*given, reading)]
        rows = labels.rows_of_plays(played, chosen, prompt, lambda pieces: chat.joined(tokenizer, pieces))
        steps, good = sum(len(p.shares) for p in played), [s > chosen.theta for p in played for s in p.shares]
    else:
        found = [step for given in measured for step in labels.steps(*given, reading)]
        taught = labels.taught(found, chosen, reading)
        rows = labels.rows_of(taught, prompt, lambda text: chat.closed(tokenizer, text))
        steps, good = len(found), [label == reading.good for _, label in taught]
    if options.get("shuffle") is not None:
        rows = labels.shuffled(rows, options["shuffle"])
    rows.save(out / f"{AGENT}.npz")
    return {"steps": steps, "rows": len(rows), "good": sum(good) / max(1, len(good))}


def appraise(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """Writes `summary.json`: the scores of steps (`rated`) against the plays that went on from them, and against outcomes.

    Beside it stands the base model that was asked the same (`untrained`).
    """
    told = {name: _scored(inputs, name, options) for name in ("rated", "untrained")}
    truths = _truths(inputs, options)
    tasks = [task for task, *_ in truths]
    shares, outcomes = (np.array(column, np.float64) for column in zip(*(row[1:] for row in truths), strict=True))
    summary: dict[str, Any] = {
        name: {
            "continuations": figures.figures(tasks, scores, shares, options["theta"]),
            "outcome": figures.figures(tasks, scores, outcomes),
        }
        for name, scores in told.items()
    }
    summary["table"] = table(summary)
    (out / SUMMARY).write_text(json.dumps(summary, indent=1) + "\n")
    return {"steps": len(tasks), "auc": summary["rated"]["continuations"]["auc"]["value"]}


def by_word(section: Mapping[str, Any]) -> dict[str, Any]:
    """How the untrained model is asked, which has no scalar head."""
    return {**section, "by": "word"}


def table(summary: Mapping[str, Any]) -> str:
    """For the terminal."""
    lines = [f"{'scores of held-out steps':<42}{'reward model':<24}{'untrained':<24}"]
    for against in ("continuations", "outcome"):
        for name in ("auc", "brier", "brier_of_the_mean"):
            cells = [summary[who][against][name] for who in ("rated", "untrained")]
            shown = [
                "-" if c["value"] is None else f"{c['value']:.3f} [{c['low']:.3f}, {c['high']:.3f}]" for c in cells
            ]
            lines.append(
                f"{name.replace('_', ' ')} against the {against:<18}".ljust(42) + "".join(f"{s:<24}" for s in shown)
            )
    return "\n".join(lines)


def _groups(
    inputs: Mapping[str, Sequence[Path]], asked: str, options: Mapping[str, Any]
) -> Iterator[tuple[Group, Findings]]:
    """Every group with what was asked about it, over all shards."""
    for rollout, grade, folder in zip(inputs["rollout"], inputs["grade"], inputs[asked], strict=True):
        known = results.read_replays(folder)
        for group in credit_app.read_groups({**inputs, "rollout": [rollout], "grade": [grade]}, options):
            yield group, known.get(group.task.id, {})


def _measured(group: Group, known: Findings, options: Mapping[str, Any]) -> list[prefixes.Scores]:
    """Of each trace (T + 1, R): how the plays ended that went on from its steps, and last how it ended itself."""
    measured = credit_app.given(prefixes.measure(group, options["repeats"]), known)
    return [measured[i] for i in range(len(group.graded))]


def _scored(inputs: Mapping[str, Sequence[Path]], name: str, options: Mapping[str, Any]) -> np.ndarray:
    """The score of every step of every trace, the bare questions left out."""
    section = options["credit"] if name == "rated" else by_word(options["credit"])
    reading = leaf.options("credit", section)
    found = [
        scored[1:]
        for group, known in _groups(inputs, name, options)
        for scored in credit_app.given(process_reward.scores(group, reading), known)
    ]
    return np.array([score for scored in found for score in scored])


def _truths(inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    """(task, share of the plays going on from it that ended right, outcome of its own play) of every step."""
    return [
        (group.task.id, float(share), graded.verdict.score)
        for group, known in _groups(inputs, "replay", options)
        for graded, scores in zip(group.graded, _measured(group, known, options), strict=True)
        for share in scores[1:].mean(axis=1)
    ]
