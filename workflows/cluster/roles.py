"""Which nodes of a batch job do what: some train, the others play. By a fixed number, or as the last round's demand was.

Not here: what a node is. A share is worked out when a job starts, from what the store says that tasks took, and holds
until the job ends: workers that have a model loaded are not moved between rounds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from apps import artifacts, stages
from apps.records import MeritError

ROUND = "promote"  # the stage that ends a round


def hosts(nodefile: str | Path) -> list[str]:
    """The hosts of a job, the first first; a scheduler may name one several times."""
    found = list(dict.fromkeys(Path(nodefile).read_text(encoding="utf-8").split()))
    if not found:
        raise MeritError(f"{nodefile} names no host; one a line is expected, as in the file that PBS_NODEFILE names")
    return found


def shared_out(nodes: int, slot_nodes: int, demand: Mapping[str, float]) -> int:
    """How many of `nodes` are to train, in whole slots, so that training and playing take equally long.

    `demand` is in node-seconds by label, "training" and "inference". One slot where either is unknown; a node at least
    is left to play.
    """
    training, playing = demand.get("training", 0), demand.get("inference", 0)
    wanted = nodes * training / (training + playing) if training and playing else slot_nodes
    slots = max(1, round(wanted / slot_nodes))
    return min(slots, (nodes - 1) // slot_nodes) * slot_nodes


def demand(store: Path, workers: int, slot_nodes: int) -> dict[str, float]:
    """Node-seconds of the last round that the store holds, by label; of all that there is where no round has ended.

    `workers` of inference share a node; a training task has `slot_nodes`.
    """
    ended = sorted(file.stat().st_mtime for file in _manifests(store, ROUND))
    since = ended[-2] if len(ended) > 1 else 0.0
    nodes = {"inference": 1 / workers, "training": float(slot_nodes)}
    known = [stage for stage in vars(stages).values() if isinstance(stage, stages.Stage)]
    elsewhere = {stage.name for stage in known if stage.label not in nodes}  # `grade` runs on either kind of worker
    labels = {stage.name: stage.label for stage in known if stage.name not in elsewhere}
    found = dict.fromkeys(nodes, 0.0)
    for stage, label in labels.items():
        made = [file for file in _manifests(store, stage) if file.stat().st_mtime > since]
        found[label] += nodes[label] * sum(artifacts.manifest(file.parent)["seconds"] for file in made)
    return found


def training_nodes(wanted: int | str | None, nodes: int, slot_nodes: int, store: Path | None, workers: int) -> int:
    """What an option `training_nodes` comes to in a job of so many nodes; 0 = all nodes both train and play.

    `wanted` is a number, "measured", or None: a slot, or 0 where that would leave none to play.
    """
    if nodes < slot_nodes:
        raise MeritError(
            f"slot_nodes={slot_nodes}: the job has {nodes} nodes; a training task cannot have more than all"
        )
    if wanted is None:
        return slot_nodes if nodes > slot_nodes else 0
    if wanted == "measured":
        if nodes <= slot_nodes:
            return 0
        return shared_out(nodes, slot_nodes, demand(store, workers, slot_nodes) if store else {})
    if wanted and not slot_nodes <= int(wanted) < nodes:
        raise MeritError(
            f"training_nodes={wanted}: from slot_nodes={slot_nodes} to {nodes - 1} of this job's {nodes} nodes can be set "
            "aside for training; 0 = every node trains and plays"
        )
    return int(wanted) // slot_nodes * slot_nodes


def _manifests(store: Path, stage: str) -> Iterator[Path]:
    return (store / stage).glob(f"*/*/{artifacts.MANIFEST}")
