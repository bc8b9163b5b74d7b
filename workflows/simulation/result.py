"""What came of a simulated run, and where its time went."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Result:
    """What came of it. Tile-seconds are of all nodes, those of training too, and add up to `offered`."""

    nodes: int
    training_nodes: int
    hours: float  # from the first task to the last, waiting for jobs included
    node_hours: float
    jobs: int
    failures: int
    offered: float  # tile-seconds of all jobs
    busy: float  # in tasks that ended
    lost: float  # in tasks that did not
    loading: float  # workers loaded their models
    dead: float  # nodes had failed
    lent: float  # idle, set aside for training
    ending: float  # idle, since what waits does not fit before the end of the job

    @property
    def utilisation(self) -> float:
        return self.busy / self.offered if self.offered else 0.0

    @property
    def waiting(self) -> float:
        """Tile-seconds in which there was nothing to do."""
        return self.offered - sum((self.busy, self.lost, self.loading, self.dead, self.lent, self.ending))
