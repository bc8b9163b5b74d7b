"""From a finished local run to another one of another shape: what it will take, before it is carried out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from apps.records import MeritError
from workflows import config as configuration
from workflows import post_train, sites
from workflows.config import PostTrain
from workflows.plan import Plan
from workflows.simulation import machine, measured
from workflows.simulation.machine import Machine
from workflows.simulation.measured import Costs


@dataclass(frozen=True, slots=True)
class Prediction:
    """Of a run's seconds from its first task to its last."""

    simulated_s: float
    predicted_s: float  # that, times what the measured run took over its own simulation
    busy_s: float  # core-seconds of its tasks
    cores: int

    @property
    def share(self) -> float:
        return min(1.0, self.busy_s / (self.predicted_s * self.cores))


@dataclass(frozen=True, slots=True)
class Measured:
    """A finished run and what its tasks cost."""

    folder: Path
    settings: PostTrain
    site: sites.Site
    costs: Costs


def read(run: str, runs: Path = Path("runs")) -> Measured:
    """The run of that name, or in that folder."""
    folder = Path(run) if (Path(run) / "config.yaml").is_file() else runs / run
    if not (folder / "artifacts.json").is_file():
        raise MeritError(
            f"--measured {run}: no finished run lies in {folder}; a name in {runs}, or a folder, is expected"
        )
    kept = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    if kept["workflow"] != "post_train":
        raise MeritError(f"--measured {run}: a run of post_train is expected; this is one of {kept['workflow']}")
    settings = configuration.load(post_train.Config, folder / "config.yaml", [])
    store = Path(kept["folder"]) / settings.store
    options = {k: v for word in kept.get("site_options", []) for k, v in configuration.parse_word(word).items()}
    return Measured(folder, settings, sites.load(kept["site"], **options), measured.read(folder, store))


def predict(of: Measured, settings: PostTrain, site: sites.Site) -> Prediction:
    """What the run of these settings on this site will take."""
    simulated, busy = _simulated(of.costs, settings, site)
    itself, _ = _simulated(of.costs, of.settings, of.site)
    return Prediction(simulated, simulated * (of.costs.wall_s or itself) / itself, busy, site.capacity)


def _simulated(costs: Costs, settings: PostTrain, site: sites.Site) -> tuple[float, float]:
    plan = Plan()
    post_train.dag(settings, plan)
    tasks = measured.tasks(plan.nodes.values(), costs, ("cpu",))
    ends = machine.ends(tasks, machine_of(site))
    loads = {task.label: task.load for task in tasks}
    workers = {
        label: min(slots, sum(t.label == label for t in tasks)) for label, slots in machine_of(site).slots.items()
    }
    busy = sum(task.work for task in tasks) + sum(workers[label] * load for label, load in loads.items())
    return max(ends), busy


def machine_of(site: sites.Site) -> Machine:
    """A site of one machine; MeritError where it is another."""
    if site.unit != "cores" or site.elsewhere:
        raise MeritError(
            f"--measured: site {site.name!r}: one machine whose tasks share its cores is expected, as local is"
        )
    threads = {"inference": site.inference_threads, "training": site.training_threads}
    slots = {"inference": site.inference_slots, "training": site.training_slots, "cpu": site.capacity, "network": 8}
    return Machine(site.capacity, slots, threads, threads)


def stage_times(of: Measured) -> dict[str, Any]:
    """What `--stage-times` reads: seconds of a core for a task of each stage, as the run divided them."""
    costs, config = of.costs, of.settings
    told = of.costs.medians
    trained = [seconds for (stage, _), seconds in told.items() if stage == "train"]
    found = {
        f"{stage} {kind}".strip(): round(seconds, 3) for (stage, kind), seconds in told.items() if stage != "train"
    }
    return {
        "what": f"measured: {of.folder.name}, {costs.busy_s:.0f} core-seconds on {of.site.capacity} cores",
        "stages": found,
        "train": {"seconds": round(median(trained), 3) if trained else 0.0, "nodes": 1, "most": 1},
        "load": round(costs.loads.get("inference", 0.0), 3),
        "spread": round(costs.spread, 3),
        "shards": {"rollout": config.rollout.shards, "evaluation": config.evaluation.shards},
        "rounds": config.rounds,
        "tiles": of.site.inference_slots,
        "cores": of.site.capacity,
    }


def write(of: Measured, out: Path) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    file = out / "stage_times.yaml"
    head = f"# Of {of.folder}: core-seconds a task. For `run.py simulate --stage-times {file}`.\n"
    file.write_text(head + yaml.safe_dump(stage_times(of), sort_keys=False), encoding="utf-8")
    return file


def lines(of: Measured, settings: Sequence[str], found: Prediction) -> list[str]:
    """For people."""
    costs, cores = of.costs, of.site.capacity
    took = "some of its tasks were found in the store"
    if costs.wall_s:
        took = f"{costs.wall_s:.1f} s, {costs.busy_s:.1f} core-seconds, {costs.busy_s / costs.wall_s / cores:.0%} of {cores} cores"
    told = f"{found.predicted_s:.1f} s, {found.busy_s:.1f} core-seconds, {found.share:.0%} of {found.cores} cores"
    return [
        f"measured   {of.folder}: {took}",
        f"predicted  {', '.join(settings) or 'itself'}: {told} (simulated: {found.simulated_s:.1f} s)",
    ]
