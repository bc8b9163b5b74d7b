"""Finds a task's traces in a run's folder, with their credit and the replays that it rests on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from apps import artifacts, leaf
from apps.credit import results
from apps.inference import traces
from apps.records import Credit, Graded, MeritError, Task
from apps.reward import verdicts
from apps.tasks import app as tasks_app


@dataclass(frozen=True, slots=True)
class Found:
    """One trace, and all that is known of it."""

    task: Task
    graded: Graded
    credit: Credit | None
    findings: results.Findings  # what was asked about the task's group
    index: int  # of the trace in its group


def found(runs: Path, run: str, task: str, when: str) -> Iterator[Found]:
    """The traces of the first task whose id begins with `task` (of all tasks of a shard for ""), played before, after, or
    in a round's training."""
    folder = _folder(runs, run)
    root = _store(folder)
    index = json.loads((folder / "artifacts.json").read_text())
    known: set[str] = set()
    for entry in _assigned(index, when):
        place = {
            name: [artifacts.locate(root, _stage(index, key), key) for key in keys]
            for name, keys in entry["inputs"].items()
        }
        shard = verdicts.read(place["grade"][0], traces.read(place["rollout"][0] / traces.FILE))
        known |= {g.trace.task for g in shard}
        meant = list(dict.fromkeys(g.trace.task for g in shard if g.trace.task.startswith(task)))
        if meant:
            chosen = meant[:1] if task else meant
            return (one for name in chosen for one in _of_task(root, entry, place, shard, name))
    raise MeritError(leaf.unknown(f"{run}, {when}: task", task, sorted(known)))


def _of_task(
    root: Path, entry: dict[str, Any], place: dict[str, list[Path]], shard: list[Graded], task: str
) -> Iterator[Found]:
    credit = results.read(artifacts.locate(root, "assign", entry["key"]))
    findings = results.read_replays(place["replay"][0]).get(task, {}) if "replay" in place else {}
    known = {t.id: t for t in tasks_app.read(place["tasks"][0])}
    group = [(g, c) for g, c in zip(shard, credit, strict=True) if g.trace.task == task]
    return (Found(known[task], g, c, findings, i) for i, (g, c) in enumerate(group))


def _assigned(index: list[dict[str, Any]], when: str) -> list[dict[str, Any]]:
    """The assign tasks of a time: the first and last outside of the rounds are those shown before and after."""
    assigned = [entry for entry in index if entry["stage"] == "assign"]
    outside = [entry for entry in assigned if entry["round"] == 0]
    rounds = sorted({entry["round"] for entry in assigned if entry["round"]})
    if when in ("before", "after"):
        return outside[:1] if when == "before" else outside[-1:]
    if not when.isdigit() or int(when) not in rounds:
        raise MeritError(leaf.unknown("--when", when, ["before", "after", *map(str, rounds)]))
    return [entry for entry in assigned if entry["round"] == int(when)]


def _stage(index: list[dict[str, Any]], key: str) -> str:
    return next(entry["stage"] for entry in index if entry["key"] == key)


def _store(folder: Path) -> Path:
    """The store of a run: a relative one lies where the run was started or, if all was moved since, below here."""
    named = Path(yaml.safe_load((folder / "config.yaml").read_text())["store"])
    started = Path(json.loads((folder / "environment.json").read_text())["folder"])
    for place in (started / named, named):
        if place.is_dir():
            return place
    raise MeritError(f"{folder}: its store, {started / named}, is not there any more")


def _folder(runs: Path, run: str) -> Path:
    for folder in (runs / run, Path(run)):
        if (folder / "artifacts.json").is_file():
            return folder
    known = sorted(file.parent.name for file in runs.glob("*/artifacts.json"))
    raise MeritError(leaf.unknown(f"finished runs in {runs}", run, known))
