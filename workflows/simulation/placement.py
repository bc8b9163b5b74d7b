"""The nodes of one job in a simulation: which tiles idle, which have a model loaded, which nodes are set aside or have failed."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass

from workflows.driver.feeders import SOON
from workflows.driver.overdue import SIGMAS


@dataclass(frozen=True, slots=True)
class Policy:
    """What a run on a site of many nodes does beyond beginning tasks in the plan's order."""

    lends: bool = True  # inference lends training its nodes; else they are set aside for the job
    kept: int = 1  # nodes that never play where the others are lent: the driver's
    soon: float = SOON  # plays that are left, a tile, when nodes are lent
    overdue: float = SIGMAS  # σ beyond the median after which a play is begun once more elsewhere; 0 = never
    late: float = 3.0  # σ beyond the median that must fit before the end of a job


POLICIES = {"measured": Policy(), "fixed": Policy(lends=False)}  # by what site/aurora's training_nodes is


class Nodes:
    """What they have to spare; the first `kept` never play. A node that has failed is lost for the job."""

    def __init__(self, count: int, tiles: int, cores: int, kept: int = 0) -> None:
        self.tiles, self.cores = tiles, cores * count
        self.idle = [tiles] * count  # tiles that nobody uses
        self.loaded = [0] * count  # tiles whose worker has its model
        self.kept = set(range(kept))
        self.aside = set(self.kept)
        self.gone: dict[int, float] = {}  # since when
        self.free = [node for node in range(kept, count) for _ in range(tiles)]  # hints: some are out of date
        self.open_idle, self.lent_idle = len(self.free), kept * tiles  # idle tiles, of nodes that play and of others

    def tile(self) -> tuple[int, bool] | None:
        """A tile of a node, taken, and whether its worker has yet to load its model."""
        while self.open_idle:
            node = self.free.pop()
            if node in self.gone or node in self.aside or not self.idle[node]:
                continue
            new = self.tiles - self.idle[node] >= self.loaded[node]
            self.loaded[node] += new
            self.idle[node] -= 1
            self.open_idle -= 1
            return node, new
        return None

    def whole(self, count: int) -> tuple[int, ...] | None:
        """So many nodes of those set aside, taken, if as many are idle."""
        idle = sorted(node for node in self.aside if node not in self.gone and self.idle[node] == self.tiles)
        if len(idle) < count:
            return None
        for node in idle[:count]:
            self.idle[node] = self.loaded[node] = 0  # inference leaves, and has to load its model again
        self.lent_idle -= self.tiles * count
        return tuple(idle[:count])

    def give_back(self, nodes: Iterable[int], tiles: int) -> None:
        """So many tiles of each."""
        for node in nodes:
            if node in self.gone:
                continue
            self.idle[node] += tiles
            if node in self.aside:
                self.lent_idle += tiles
            else:
                self.open_idle += tiles
                self.free += [node] * tiles

    def lend(self, count: int) -> None:
        """Sets nodes aside until there are so many, those with the most idle tiles first; what runs there ends first."""
        lacking = count - len(self.aside - self.gone.keys())
        if lacking > 0:
            others = [node for node in range(len(self.idle)) if node not in self.aside and node not in self.gone]
            for node in heapq.nlargest(lacking, others, key=self.idle.__getitem__):
                self.aside.add(node)
                self.open_idle -= self.idle[node]
                self.lent_idle += self.idle[node]

    def open(self, nodes: Iterable[int]) -> None:
        """Nodes that were lent are inference's again."""
        for node in self.aside.intersection(nodes) - self.kept:
            self.aside.discard(node)
            if node not in self.gone:
                self.lent_idle -= self.idle[node]
                self.open_idle += self.idle[node]
                self.free += [node] * self.idle[node]

    def fail(self, node: int, now: float) -> None:
        self.gone[node] = now
        if node in self.aside:
            self.lent_idle -= self.idle[node]
        else:
            self.open_idle -= self.idle[node]
