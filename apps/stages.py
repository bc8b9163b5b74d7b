"""The stages as Parsl apps: the only file under `apps/` that imports Parsl.

A stage is a function `(out, inputs, options) -> facts` in some `app.py`: folders in, one folder out, no formula. What runs
it is the executor whose label says what it needs: `inference` (a device with a model loaded), `training` (a process, or
ranks, of its own), `cpu`, `network`.
"""

from __future__ import annotations

import json
import platform
import shutil
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from apps import artifacts, attempt, dormant
from apps.platform import bell, deadline, faults, nearby, processes, work
from apps.records import Artifact

FACTS = "facts.json"
NO_WISH: Mapping[str, Any] = {}
PARTIAL = "partial"  # in the store: what unfinished tasks have saved
_submitting = threading.Lock()  # Parsl numbers tasks without one


@dataclass(frozen=True, slots=True)
class Stage:
    """A kind of task."""

    name: str  # in the store, in keys and on the screen
    module: str  # where its function is; the function bears the stage's name
    label: str  # of the executor
    own_process: bool = False  # on a site of threads it runs in a warm process beside, whatever the site says
    carried_out: tuple[str, tuple[str, ...]] | None = (
        None  # (section, its settings) that say how and not what: a task that
    )
    # was cut short is gone on with by one that differs in these alone; None = it starts anew


TASKS = Stage("tasks", "apps.tasks.app", "cpu")
BASE = Stage("base", "apps.policies", "cpu")
ROLLOUT = Stage("rollout", "apps.inference.app", "inference")
RETELL = Stage("retell", "apps.inference.app", "inference")
GRADE = Stage("grade", "apps.reward.app", "cpu")
GRADE_BY_MODEL = Stage("grade", "apps.reward.app", "inference")
REFILL = Stage("refill", "apps.reward.app", "cpu")
REPLAY = Stage("replay", "apps.credit.app", "inference")
CALIBRATE = Stage("calibrate", "apps.credit.app", "cpu")
ASSIGN = Stage("assign", "apps.credit.app", "cpu")
BATCH = Stage("batch", "apps.training.app", "cpu")
VALUES = Stage("values", "apps.training.app", "training", own_process=True)
REFERENCE = Stage("reference", "apps.training.app", "training", own_process=True)
HOW = ("parallel", "ranks", "offload", "micro_tokens", "packing", "activation_checkpointing")
TRAIN = Stage("train", "apps.training.app", "training", own_process=True, carried_out=("training", HOW))
MERGE = Stage("merge", "apps.training.app", "training", own_process=True)
GATHER = Stage("gather", "apps.policies", "cpu")
CAST = Stage("cast", "apps.policies", "cpu")
MEASURE = Stage("measure", "apps.evaluation.app", "cpu")
PROMOTE = Stage("promote", "apps.evaluation.app", "cpu")
REPORT = Stage("report", "apps.report.app", "cpu")
CLAIMS = Stage("claims", "apps.report.claims", "cpu")
EFFECTS = Stage("effects", "apps.report.effects", "cpu")
SWEEP = Stage("sweep", "apps.report.sweep", "cpu")
RUNG = Stage("rung", "apps.evaluation.rung", "cpu")
CONTEST = Stage("contest", "apps.fidelity.app", "cpu", own_process=True)
PLANTED = Stage("planted", "apps.fidelity.app", "cpu", own_process=True)
ADOPTED = Stage("adopted", "apps.fidelity.app", "cpu")
COMPARED = Stage("compared", "apps.fidelity.app", "cpu", own_process=True)
FIDELITY = Stage("fidelity", "apps.fidelity.report", "cpu")
STEP_LABELS = Stage("step_labels", "apps.reward_model.app", "cpu", own_process=True)
PAIRS = Stage("pairs", "apps.preference.app", "cpu")
PREFER = Stage("prefer", "apps.preference.app", "inference")
AGREEMENT = Stage("agreement", "apps.preference.app", "cpu")
REWARD_ROWS = Stage("reward_rows", "apps.preference.app", "cpu", own_process=True)
APPRAISE_PAIRS = Stage("appraise_pairs", "apps.preference.app", "inference")
APPRAISE = Stage("appraise", "apps.reward_model.app", "cpu")
CONVERSATIONS = Stage("conversations", "apps.data.sft", "cpu", own_process=True)
EXTEND = Stage("extend", "apps.data.extension", "cpu", own_process=True)
DOCUMENTS = Stage("documents", "apps.data.domains", "cpu", own_process=True)
MIX = Stage("mix", "apps.data.waves", "cpu")
GATE = Stage("gate", "apps.data.waves", "cpu")
LIKELIHOOD = Stage("likelihood", "apps.training.likelihood", "training", own_process=True)
LOSSES = Stage("losses", "apps.report.losses", "cpu")
CORPUS = Stage("corpus", "apps.data.app", "cpu", own_process=True)
ARCHITECTURE = Stage("architecture", "apps.data.app", "cpu", own_process=True)
ASSESS = Stage("assess", "apps.data.app", "inference")
CARD = Stage("card", "apps.data.app", "cpu")
# read what a whole run made, once all else is done: they have copies of what is packed, and nothing is woken for them
LATE = (REPORT.name,)


def launch(
    stage: Stage,
    key: str,
    root: Path,
    options: Mapping[str, Any],
    machine: Mapping[str, Any],
    inputs: Mapping[str, Any],
    priority: int | None = None,
) -> Future:
    """Hands a task to its executor. `inputs` holds lists of artifacts or of their futures.

    With a `priority` those that wait there go in its order, the least first; the executor has to know of it.

    With `machine["own_process"]` the task runs in a warm process beside the driver. `options` are in the key; `machine` (device, threads, where things lie) says how it runs here and is not.
    """
    rest = Sealed(
        {
            "module": stage.module,
            "root": str(root),
            "options": dict(options),
            "machine": dict(machine),
            "pool": stage.label if stage.own_process or machine.get("own_process") else "",
        }
    )
    # Parsl keeps the name `inputs` for itself
    order = {} if priority is None else {"parsl_resource_specification": {"priority": priority}}
    return _submit(stage.label, stage=stage.name, key=key, given=dict(inputs), rest=rest, **order)


def again(task: Mapping[str, Any]) -> Future:
    """Hands a task of which Parsl has this record over once more, to make what it made again."""
    return _submit(task["executor"], **task["kwargs"])


def tell(task: Mapping[str, Any], **machine: Any) -> None:
    """Adds to what a task of which Parsl has this record is told of the machine, from its next attempt on."""
    rest = task["kwargs"]["rest"].arguments
    task["kwargs"]["rest"] = Sealed({**rest, "machine": {**rest["machine"], **machine}})


@dataclass(frozen=True, slots=True)
class Sealed:
    """Arguments without futures in them. Parsl would look for some in every list and mapping, which takes its time."""

    arguments: dict[str, Any]


def unseal(
    *,
    stage: str,
    key: str,
    given: dict[str, list[Artifact]],
    rest: Sealed,
    parsl_resource_specification: Mapping[str, Any] = NO_WISH,
) -> Artifact:
    """What Parsl calls, where it sent the task; the last is for the executor."""
    pool = rest.arguments["pool"]
    bell.ring(key, fresh=bool(pool) and not processes.warm(pool))
    with deadline.within(stage, rest.arguments["machine"]):
        return execute(stage=stage, key=key, given=given, **rest.arguments)


def execute(
    *,
    stage: str,
    key: str,
    module: str,
    root: str,
    options: dict[str, Any],
    machine: dict[str, Any],
    given: dict[str, list[Artifact]],
    pool: str,
) -> Artifact:
    """Runs a stage, wherever it was sent, and puts its artifact into the store.

    Raises faults.LostInput where an input is gone or damaged, which then counts as absent. Memory that does not suffice is met
    with smaller batches here; for other faults see workflows/driver/retries.py.
    """
    made_from = {name: [artifact.key for artifact in found] for name, found in given.items()}
    record = {"options": options, "inputs": made_from}
    needed = {artifact for found in given.values() for artifact in found}

    # the ranks of `train` may be on other nodes, and look for copies themselves
    near = machine if stage == TRAIN.name else nearby.models(machine)

    def carry_out(chosen: dict[str, Any]) -> attempt.Outcome:
        folders = {name: [place[artifact] for artifact in found] for name, found in given.items()}
        call = (module, stage, out, folders, {**chosen, **near})
        return attempt.in_process(pool, machine, perform, *call) if pool else perform(*call)

    with attempt.at_hand(needed, apart=stage in LATE) as place:
        attempt.check_inputs(root, place)
        try:
            with artifacts.new(root, stage, key, record) as out:
                facts, cost = attempt.within_memory(carry_out, out, options, machine.get("halvings", 0))
                record["work"] = {**cost, "session": machine.get("session", "")}
                (out / FACTS).write_text(json.dumps(facts, default=float) + "\n")
        except Exception as error:
            faults.at(error, platform.node())
            attempt.check_inputs(root, place, error)
            raise
    if machine.get("partial"):
        shutil.rmtree(machine["partial"], ignore_errors=True)  # it is whole now
    return Artifact(stage, key, str(artifacts.locate(root, stage, key)))


def perform(
    module: str, stage: str, out: Path, folders: Mapping[str, list[Path]], options: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The stage's own function, in the process that computes, and what it cost (work.Work).

    A device that was left open is chosen here, as only here it is seen.
    """
    if options.get("device") == "auto":
        from apps.platform import devices

        options = {**options, "device": devices.pick()}
    return work.measured(module, stage, out, folders, options)


def facts_of(artifact: Artifact) -> dict[str, Any]:
    """What a stage said of its work."""
    return json.loads(dormant.read(Path(artifact.path), FACTS))


def _submit(label: str, **kwargs: Any) -> Future:
    with _submitting:
        return _app(label)(**kwargs)


@cache
def _app(label: str):
    from parsl import python_app

    return python_app(unseal, executors=[label], cache=True)
