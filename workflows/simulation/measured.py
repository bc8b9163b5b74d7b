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

from apps import artifacts, records, stages
from apps.platform import work
from apps.records import MeritError
from workflows.plan import Node
from workflows.simulation.machine import Task

UNITS = ("traces", "turns", "tokens", "replays")  # facts of a stage that its work grows with
SHARDED = ("rollout", "grade", "replay", "assign", "retell")
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


@dataclass(frozen=True, slots=True)
class Costs:
    """Of a finished run."""

    groups: Mapping[str, Group]
    likes: Mapping[str, str]  # what a group is like -> the latest of the kind
    fits: Mapping[str, Mapping[str, float]]  # stage -> core-seconds: "" for each task, and for each unit
    loads: Mapping[str, float]  # executor -> core-seconds more in a worker's first task
    delays: Mapping[str, float]  # stage -> seconds of a task in which it waited for disk or process
    medians: Mapping[
        tuple[str, str], float
    ]  # (stage, "evaluation" where it plays for figures) -> core-seconds of a task
    spread: float  # σ of the logarithm of work over its fit
    wall_s: float
    busy_s: float

    def of(self, node: Node, kin: str, held: float) -> tuple[float, float]:
        """(core-seconds, delay) of a task that is to be."""
        name = node.stage.name
        group = self.groups.get(kin) or self.groups.get(self.likes.get(_like(name, node.options), ""))
        if group is None:
            return self.fits.get(name, {}).get("", 0.0), self.delays.get(name, 0.0)
        return _fitted(self.fits[name], group, held / group.held) * _factor(self.fits[name], group), self.delays[name]


def read(folder: Path, store: Path) -> Costs:
    """Of the run in a folder, whose artifacts lie in `store`. MeritError where there is nothing to measure by."""
    index = json.loads((folder / "artifacts.json").read_text(encoding="utf-8"))
    made = {entry["key"]: artifacts.manifest(artifacts.locate(store, entry["stage"], entry["key"])) for entry in index}
    took = {key: work.of(manifest) for key, manifest in made.items()}
    if missing := [key for key, cost in took.items() if cost is None]:
        raise MeritError(
            f"--measured {folder}: {len(missing)} of its {len(made)} tasks were made before costs were told; run it again in a "
            "new store"
        )
    told = {k: Told(m["stage"], m["record"]["options"], m["record"]["inputs"]) for k, m in made.items()}
    kins, holds = related(told)
    facts = {k: json.loads((artifacts.locate(store, t.stage, k) / stages.FACTS).read_text()) for k, t in told.items()}
    units = {k: {u: float(f.get(u) or 0) for u in UNITS} for k, f in facts.items()}
    loads = _loads(told, took, units)
    work_of = {k: max(0.0, cost.cpu_s - _load_in(told[k].stage, cost, loads)) for k, cost in took.items()}
    groups: dict[str, Group] = defaultdict(Group)
    for key, kin in kins.items():
        group = groups[kin]
        group.held, group.shards, group.work = group.held + holds[key], group.shards + 1, group.work + work_of[key]
        group.units = {u: group.units[u] + units[key][u] for u in UNITS}
    by_stage: dict[str, list[str]] = defaultdict(list)
    for key, one in told.items():
        by_stage[one.stage].append(key)
    fits = {name: _fit([units[k] for k in keys], [work_of[k] for k in keys]) for name, keys in by_stage.items()}
    delays = {s: median(max(0.0, made[k]["seconds"] - took[k].seconds) for k in keys) for s, keys in by_stage.items()}
    return Costs(
        groups=groups,
        likes={_like(told[k].stage, told[k].options): kin for k, kin in kins.items()},
        fits=fits,
        loads=loads,
        delays=delays,
        medians=_medians(told, work_of),
        spread=_spread(told, units, work_of, fits),
        wall_s=max(w.ended for w in took.values()) - min(w.began for w in took.values()),
        busy_s=sum(w.cpu_s for w in took.values()),
    )


def tasks(nodes: Iterable[Node], costs: Costs, in_driver: Sequence[str]) -> list[Task]:
    """The tasks of a plan with what they will cost; `in_driver` are executors whose tasks run in the driver's threads."""
    nodes = list(nodes)
    told = {
        n.key: Told(n.stage.name, n.options, {k: tuple(i.key for i in v) for k, v in n.inputs.items()}) for n in nodes
    }
    kins, holds = related(told)
    place = {node.key: number for number, node in enumerate(nodes)}
    found = []
    for node in nodes:
        seconds, delay = costs.of(node, kins[node.key], holds[node.key])
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


def _like(stage: str, options: Mapping[str, Any]) -> str:
    """What a task is like, whatever its round: its stage, its agent, how and for what it plays."""
    seed = str(options.get("seed", "")).split("/")[1:2]
    return json.dumps([stage, options.get("agent"), to_jsonable_python(options.get("plan")), seed])


def _loads(told: Mapping[str, Told], took: Mapping[str, work.Work], units: Mapping[str, Any]) -> dict[str, float]:
    """Core-seconds that the first task of a worker takes beyond the fit of the others, for executors that load models."""
    found = {}
    for label, stage in (("inference", "rollout"), ("training", "train")):
        keys = [k for k, one in told.items() if one.stage == stage]
        later = [k for k in keys if not took[k].first]
        first = [k for k in keys if took[k].first]
        if first and later:
            fit = _fit([units[k] for k in later], [took[k].cpu_s for k in later])
            found[label] = max(0.0, median(took[k].cpu_s - _value(fit, units[k]) for k in first))
    return found


def _load_in(stage: str, cost: work.Work, loads: Mapping[str, float]) -> float:
    label = {"rollout": "inference", "train": "training"}.get(stage, "")
    return loads.get(label, 0.0) if cost.first else 0.0


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


def _spread(told: Mapping[str, Told], units: Mapping[str, Any], seconds: Mapping[str, float], fits: Any) -> float:
    """Over plays and replays."""
    pairs = [
        (seconds[k], _value(fits[one.stage], units[k])) for k, one in told.items() if one.stage in ("rollout", "replay")
    ]
    logs = [math.log(a / b) for a, b in pairs if a > 0 and b > 0]
    return float(np.std(logs)) if len(logs) > 1 else 0.0
