"""Which nodes of a batch job train and which play: so many for the whole job, or as many as training wants in each round.

Not here: who gives the nodes out while a run is at work (workflows/driver/lending.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from apps.records import MeritError


@dataclass(frozen=True, slots=True)
class Shares:
    """The nodes of a job."""

    kept: tuple[str, ...]  # they train, whatever else they do
    playing: tuple[str, ...]  # they play, and train while they are lent
    slot_nodes: int  # nodes of a training task of several ranks
    lends: bool = False  # whether training may have nodes that play; one at least is left to play
    workers: int = 12  # of training, each of which sees to one task

    @property
    def slots(self) -> int:
        """Training tasks of several ranks at the same time."""
        nodes = len(self.kept) + (max(0, len(self.playing) - 1) if self.lends else 0)
        return min(self.workers, nodes // self.slot_nodes)


def hosts(nodefile: str | Path) -> list[str]:
    """The hosts of a job, the first first; a scheduler may name one several times."""
    found = list(dict.fromkeys(Path(nodefile).read_text(encoding="utf-8").split()))
    if not found:
        raise MeritError(f"{nodefile} names no host; one a line is expected, as in the file that PBS_NODEFILE names")
    return found


def shared_out(hosts: Sequence[str], training_nodes: int | str, slot_nodes: int, workers: int) -> Shares:
    """What an option `training_nodes` comes to in a job.

    A number; or "measured": the first node, where the driver is, never plays, and what more training wants it is lent by
    inference while it wants it. 0, or "measured" with too few nodes for that: all train, and play beside it (`playing` is empty).
    """
    nodes = len(hosts)
    if nodes < slot_nodes:
        raise MeritError(
            f"slot_nodes={slot_nodes}: the job has {nodes} nodes; a training task cannot have more than all"
        )
    if training_nodes == 0 or (training_nodes == "measured" and nodes == slot_nodes):
        return Shares(tuple(hosts), (), slot_nodes, workers=workers)
    if training_nodes == "measured":
        return Shares(tuple(hosts[:1]), tuple(hosts[1:]), slot_nodes, nodes > 2, workers)
    if not slot_nodes <= int(training_nodes) < nodes:
        raise MeritError(
            f"training_nodes={training_nodes}: from slot_nodes={slot_nodes} to {nodes - 1} of this job's {nodes} nodes can be "
            "set aside for training; 0 = every node trains and plays, measured = as many as it wants in each round"
        )
    kept = int(training_nodes) // slot_nodes * slot_nodes
    return Shares(tuple(hosts[:kept]), tuple(hosts[kept:]), slot_nodes, workers=workers)
