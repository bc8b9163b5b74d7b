"""What the tasks of a finished run cost, and what those of another run like it would: of other shards, on other workers.

Work is counted in core-seconds, which another user of the machine disturbs less than the clock. Tasks that differ in their shard
alone are a *group* (the same stage, options and inputs): what a group plays and says is the same however it is divided, since draws are keyed.
So a shard has its part of the group's turns, tokens, traces and replays, and each stage has a cost for each of these, and one for every task
(calls of the engine, opening of files), fitted over all tasks of the run. What a group took more, or less, than the fit is kept. A group that
the measured run had not (more rounds) takes what its latest like took.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from pydantic_core import to_jsonable_python

from apps import artifacts, dormant, records, stages
from apps.platform import work
from apps.records import MeritError
from workflows.driver import usage
from workflows.plan import Node
from workflows.simulation.machine import Task

UNITS = ("traces", "turns", "tokens", "replays")  # facts of a stage that its work grows with
SHARDED = ("rollout", "grade", "replay", "assign", "retell")
LOADING = {"inference": "rollout", "training": "train"}  # executor -> the stage by which its loading is measured
SPLIT = {"take": ("start", "count", "part"), "training": stages.HOW}  # options that say how work is divided


@dataclass(frozen=True, slots=True)
class Told:
    """A task, of a finished run or of a plan, as far as its cost depends on it."""

    stage: str
    options: Mapping[str, Any]
    inputs: Mapping[str, tuple[str, ...]]  # keys


@dataclass(slots=True)
class Group:
    """Tasks of a finished run that differ in their shard alone."""

    held: float = 0.0  # tasks to be solved, over all of its shards
    shards: int = 0
    work: float = 0.0  # core-seconds, without loading
    units: dict[str, float] = field(default_factory=lambda: dict.fromkeys(UNITS, 0.0))

    def add(self, held: float, seconds: float, units: Mapping[str, float]) -> None:
        self.held, self.shards, self.work = self.held + held, self.shards + 1, self.work + seconds
        self.units = {unit: self.units[unit] + units[unit] for unit in UNITS}


@dataclass(frozen=True, slots=True)
class Costs:
    """Of a finished run."""

    groups: Mapping[str, Group]
    likes: Mapping[str, str]  # what a group is like -> the latest of the kind
    fits: Mapping[str, Mapping[str, float]]  # stage -> core-seconds: "" for each task, and for each unit
    loads: Mapping[str, float]  # executor -> core-seconds more in a worker's first task
    delays: Mapping[str, float]  # stage -> seconds of a task in which it waited for disk or process
    medians: Mapping[tuple[str, str], float]  # (stage, "evaluation" where it plays for figures) -> of a task
    spread: float  # σ of the logarithm of work over its fit
    wall_s: float | None  # from the first task to the last; None where some were found in the store, of who knows when
    busy_s: float

    def of(self, node: Node, kin: str, like: str, held: float) -> tuple[float, float]:
        """(core-seconds, delay) of a task that is to be."""
        name = node.stage.name
        group = self.groups.get(kin) or self.groups.get(self.likes.get(like, ""))
        if group is None:
            return self.fits.get(name, {}).get("", 0.0), self.delays.get(name, 0.0)
        return _fitted(self.fits[name], group, held / group.held) * _factor(self.fits[name], group), self.delays[name]


@dataclass(frozen=True, slots=True)
class Finished:
    """The tasks of a finished run, by key."""

    told: dict[str, Told]
    took: dict[str, work.Work]
    units: dict[str, dict[str, float]]
    waited: dict[str, float]  # seconds besides its work: a process that starts, files that are written

    def of(self, stage: str, first: bool | None = None) -> list[str]:
        """Keys of a stage's tasks; those that were the first of their worker, or were not."""
        return [k for k, one in self.told.items() if one.stage == stage and first in (None, self.took[k].first)]


def read(folder: Path, store: Path) -> Costs:
    """Of the run in a folder, whose artifacts lie in `store`. MeritError where there is nothing to measure by."""
    run = _finished(folder, store)
    loads, names = _loads(run), dict.fromkeys(one.stage for one in run.told.values())
    work_of = {k: max(0.0, cost.cpu_s - _load_in(run.told[k].stage, cost, loads)) for k, cost in run.took.items()}
    fits = {n: _fit([run.units[k] for k in run.of(n)], [work_of[k] for k in run.of(n)]) for n in names}
    kins, holds = related(run.told)
    groups: dict[str, Group] = defaultdict(Group)
    for key, kin in kins.items():
        groups[kin].add(holds[key], work_of[key], run.units[key])
    return Costs(
        groups=groups,
        likes={like: kins[key] for key, like in alike(run.told).items()},
        fits=fits,
        loads=loads,
        delays={name: median(run.waited[k] for k in run.of(name)) for name in names},
        medians=_medians(run.told, work_of),
        spread=_spread(run, work_of, fits),
        wall_s=_wall(folder, run.told),
        busy_s=sum(cost.cpu_s for cost in run.took.values()),
    )


def _finished(folder: Path, store: Path) -> Finished:
    index = json.loads((folder / "artifacts.json").read_text(encoding="utf-8"))
    places = {entry["key"]: artifacts.locate(store, entry["stage"], entry["key"]) for entry in index}
    made = {key: dormant.manifest(place) for key, place in places.items()}
    took = {key: cost for key, manifest in made.items() if (cost := work.of(manifest))}
    if len(took) < len(made):
        raise MeritError(
            f"--measured {folder}: {len(made) - len(took)} of its {len(made)} tasks were made before costs were told; run it "
            "again in a new store"
        )
    facts = {key: json.loads(dormant.read(place, stages.FACTS)) for key, place in places.items()}
    return Finished(
        told={k: Told(m["stage"], m["record"]["options"], m["record"]["inputs"]) for k, m in made.items()},
        took=took,
        units={key: {unit: float(fact.get(unit) or 0) for unit in UNITS} for key, fact in facts.items()},
        waited={key: max(0.0, made[key]["seconds"] - cost.seconds) for key, cost in took.items()},
    )


def _wall(folder: Path, made: Iterable[str]) -> float | None:
    told = json.loads((folder / usage.FILE).read_text(encoding="utf-8"))
    return told["use"]["wall_s"] if {task["key"] for task in told["tasks"]} >= set(made) else None


def tasks(nodes: Iterable[Node], costs: Costs, in_driver: Sequence[str]) -> list[Task]:
    """The tasks of a plan with what they will cost; `in_driver` are executors whose tasks run in the driver's threads."""
    nodes = list(nodes)
    told = {
        n.key: Told(n.stage.name, n.options, {k: tuple(i.key for i in v) for k, v in n.inputs.items()}) for n in nodes
    }
    kins, holds = related(told)
    likes = alike(told)
    place = {node.key: number for number, node in enumerate(nodes)}
    found = []
    for node in nodes:
        seconds, delay = costs.of(node, kins[node.key], likes[node.key], holds[node.key])
        needs = tuple(place[given.key] for given_ in node.inputs.values() for given in given_)
        label = node.stage.label
        driver = label in in_driver and not node.stage.own_process
        found.append(Task(label, needs, seconds, delay, costs.loads.get(label, 0.0), driver))
    return found


def related(told: Mapping[str, Told]) -> tuple[dict[str, str], dict[str, float]]:
    """Of each task (key): the group that it belongs to, and how many tasks to be solved it holds; 1 where it holds none.

    Tasks come after those that they need.
    """
    kins: dict[str, str] = {}
    holds: dict[str, float] = {}
    for key, one in told.items():
        options = {} if one.stage == "report" else {k: _undivided(k, v) for k, v in one.options.items()}
        inputs = {name: sorted({kins[k] for k in keys}) for name, keys in one.inputs.items()}
        kins[key] = records.digest(to_jsonable_python({"stage": one.stage, "options": options, "inputs": inputs}))
        taken = one.options.get("take")
        played = one.inputs.get("rollout", ()) if one.stage in SHARDED else ()
        holds[key] = float(taken["count"]) if taken else sum(holds[k] for k in played) or 1.0
    return kins, holds


def _undivided(name: str, value: Any) -> Any:
    return {k: v for k, v in value.items() if k not in SPLIT[name]} if name in SPLIT else value


def alike(told: Mapping[str, Told]) -> dict[str, str]:
    """What each task is like, whatever its round: its stage and agent, how and for what it plays, an untrained team or another."""
    found: dict[str, str] = {}
    for key, one in told.items():
        options, team = one.options, one.inputs.get("policies", ())[:1]
        what = [one.stage, options.get("agent"), options.get("plan"), str(options.get("seed", "")).split("/")[1:2]]
        what += (
            [told[k].stage == "base" for k in team] if what[3] != ["train"] else []
        )  # the first rounds' may be either
        what += [found[k] for k in one.inputs.get("rollout", ())[:1]] if one.stage in SHARDED else []
        found[key] = records.digest(to_jsonable_python(what))
    return found


def _loads(run: Finished) -> dict[str, float]:
    """Core-seconds that the first task of a worker takes beyond the fit of the others, for executors that load models."""
    found = {}
    for label, stage in LOADING.items():
        first, later = run.of(stage, True), run.of(stage, False)
        if first and later:
            fit = _fit([run.units[k] for k in later], [run.took[k].cpu_s for k in later])
            found[label] = max(0.0, median(run.took[k].cpu_s - _value(fit, run.units[k]) for k in first))
    return found


def _load_in(stage: str, cost: work.Work, loads: Mapping[str, float]) -> float:
    return next((loads.get(label, 0.0) for label, name in LOADING.items() if name == stage and cost.first), 0.0)


def _fit(units: Sequence[Mapping[str, float]], seconds: Sequence[float]) -> dict[str, float]:
    """Least squares over a constant and the units, none of them negative: the worst is left out until none is."""
    names = ["", *(u for u in UNITS if any(row[u] for row in units))]
    while True:
        table = np.array([[1.0 if not n else row[n] for n in names] for row in units])
        scale = table.max(axis=0)
        found = np.linalg.lstsq(table / scale, np.array(seconds), rcond=None)[0] / scale
        if (worst := int(np.argmin(found * scale))) is not None and found[worst] < 0 and len(names) > 1:
            names.pop(worst)
            continue
        return dict(zip(names, found.tolist(), strict=True))


def _value(fit: Mapping[str, float], units: Mapping[str, float]) -> float:
    return sum(cost * (units[name] if name else 1.0) for name, cost in fit.items())


def _fitted(fit: Mapping[str, float], group: Group, part: float) -> float:
    """Core-seconds of one task that holds this part of a group."""
    return _value(fit, {name: total * part for name, total in group.units.items()})


def _factor(fit: Mapping[str, float], group: Group) -> float:
    """What the group took over what the fit says."""
    expected = _fitted(fit, group, 1.0) + (group.shards - 1) * fit.get("", 0.0)
    return group.work / expected if expected > 0 else 1.0


def _medians(told: Mapping[str, Told], seconds: Mapping[str, float]) -> dict[tuple[str, str], float]:
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for key, one in told.items():
        purpose = str(one.options.get("seed", "")).split("/")[1:2]
        found[one.stage, "evaluation" if purpose in (["test"], ["validation"]) else ""].append(seconds[key])
    return {place: median(took) for place, took in found.items()}


def _spread(run: Finished, seconds: Mapping[str, float], fits: Mapping[str, Mapping[str, float]]) -> float:
    """Over plays and replays."""
    pairs = [(seconds[k], _value(fits[name], run.units[k])) for name in ("rollout", "replay") for k in run.of(name)]
    logs = [math.log(a / b) for a, b in pairs if a > 0 and b > 0]
    return float(np.std(logs)) if len(logs) > 1 else 0.0
