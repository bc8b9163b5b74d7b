"""Finds what a finished run played, with its credit and the replays that it rests on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from apps import artifacts, dormant, leaf
from apps.credit import results
from apps.inference import traces
from apps.records import Credit, Graded, MeritError, Task
from apps.reward import verdicts
from apps.tasks import app as tasks_app


@dataclass(frozen=True, slots=True)
class Shard:
    """Whole groups of a run, by the folders of what was made of them."""

    round: int  # of training; 0 = before the first or after the last
    place: dict[str, list[Path]]  # stage -> folders: tasks, rollout, grade, assign, perhaps replay

    def tasks(self) -> dict[str, Task]:
        return {task.id: task for task in tasks_app.read(self.folder("tasks"))}

    def graded(self) -> list[Graded]:
        return verdicts.read(self.folder("grade"), traces.read(self.folder("rollout") / traces.FILE))

    def credit(self) -> list[Credit]:
        return results.read(self.folder("assign"))

    def findings(self) -> dict[str, results.Findings]:
        return results.read_replays(self.folder("replay")) if "replay" in self.place else {}

    def folder(self, stage: str) -> Path:
        """What was made by a stage; a copy where it lies in a pack."""
        return dormant.copied(self.place[stage][0])


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
    known: set[str] = set()
    for shard in shards(folder_of(runs, run), when):
        graded = shard.graded()
        known |= {g.trace.task for g in graded}
        meant = list(dict.fromkeys(g.trace.task for g in graded if g.trace.task.startswith(task)))
        if meant:
            chosen = meant[:1] if task else meant
            return (one for name in chosen for one in _of_task(shard, graded, name))
    raise MeritError(leaf.unknown(f"{run}, {when}: task", task, sorted(known)))


def shards(folder: Path, when: str) -> list[Shard]:
    """What was played and given credit before, after, in a round's training, or in that of all rounds."""
    root, index = store_of(folder), json.loads((folder / "artifacts.json").read_text())
    stages = {entry["key"]: entry["stage"] for entry in index}
    if "assign" not in stages.values():
        raise MeritError(f"{folder}: credit was given to no play of this run; name one of post_train")
    found = []
    for entry in _assigned(index, when):
        keys = {**entry["inputs"], "assign": [entry["key"]]}
        place = {name: [artifacts.locate(root, stages[key], key) for key in of] for name, of in keys.items()}
        found.append(Shard(entry["round"], place))
    return found


def folder_of(runs: Path, run: str) -> Path:
    """The folder of a finished run, by its name or by itself."""
    for folder in (runs / run, Path(run)):
        if (folder / "artifacts.json").is_file():
            return folder
    known = sorted(file.parent.name for file in runs.glob("*/artifacts.json") if file.parent.name != "latest")
    known += sorted(
        str(file.parent.relative_to(runs)) for file in runs.glob("*/*/artifacts.json") if "latest" not in file.parts
    )
    raise MeritError(leaf.unknown(f"finished runs in {runs}", run, known))


def _of_task(shard: Shard, graded: list[Graded], task: str) -> Iterator[Found]:
    findings, known = shard.findings().get(task, {}), shard.tasks()
    group = [(g, c) for g, c in zip(graded, shard.credit(), strict=True) if g.trace.task == task]
    return (Found(known[task], g, c, findings, i) for i, (g, c) in enumerate(group))


def _assigned(index: list[dict[str, Any]], when: str) -> list[dict[str, Any]]:
    """The assign tasks of a time: the first and last outside of the rounds are those shown before and after."""
    assigned = [entry for entry in index if entry["stage"] == "assign"]
    outside = [entry for entry in assigned if entry["round"] == 0]
    rounds = sorted({entry["round"] for entry in assigned if entry["round"]})
    if when in ("before", "after"):
        return outside[:1] if when == "before" else outside[-1:]
    if when == "all" and rounds:
        return [entry for entry in assigned if entry["round"]]
    if not when.isdigit() or int(when) not in rounds:
        raise MeritError(leaf.unknown("--when", when, ["before", "after", *map(str, rounds)]))
    return [entry for entry in assigned if entry["round"] == int(when)]


def store_of(folder: Path) -> Path:
    """The store of a run: a relative one lies where the run was started or, if all was moved since, below here."""
    named = Path(yaml.safe_load((folder / "config.yaml").read_text())["store"])
    started = Path(json.loads((folder / "environment.json").read_text())["folder"])
    for place in (started / named, named):
        if place.is_dir():
            return place
    raise MeritError(f"{folder}: its store, {started / named}, is not there any more")
