"""Who has which node of a job: training tasks of several ranks, the workers of inference, or, for a moment, nobody.

Decisions alone, without threads and Parsl: lending.py carries them out. A node is lent when training wants it, is emptied by
letting the tasks on it end, and goes back when no training wants it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from apps.platform.launchers import short
from workflows.cluster.roles import Shares


@dataclass(slots=True)
class Changes:
    """What a step came to."""

    granted: dict[int, list[str]] = field(default_factory=dict)  # training task -> the nodes that it has now
    lent: list[str] = field(default_factory=list)
    returned: list[str] = field(default_factory=list)


class JobNodes:
    """`rests(host)` says whether a node had better train nothing for a while."""

    def __init__(self, shares: Shares, rests: Callable[[str], bool] = lambda host: False) -> None:
        self.shares, self.rests = shares, rests
        self.free = list(shares.kept)
        self.emptying: list[str] = []  # lent, and inference has yet to end there
        self.has: dict[int, list[str]] = {}  # by training task

    @property
    def lent(self) -> list[str]:
        """Nodes on which inference is to begin nothing."""
        taken = self._taken()
        return [host for host in self.shares.playing if host in taken]

    def known(self, busy: Mapping[str, float]) -> bool:
        """Whether workers of inference go by the names of this job's hosts."""
        return any(_of(host, busy) is not None for host in self.shares.playing)

    def silent(self, busy: Mapping[str, float]) -> dict[str, int]:
        """Lent nodes of training tasks on which the workers of inference, which idle there, are not to be heard: host -> task."""
        pairs = ((host, task) for task, nodes in self.has.items() for host in nodes if host in self.shares.playing)
        return {host: task for host, task in pairs if self.known(busy) and _of(host, busy) is None}

    def let_go(self, task: int) -> None:
        """It has ended, or its attempt has failed."""
        self.free += self.has.pop(task, [])

    def step(self, busy: Mapping[str, float], waiting: Sequence[int], wanted: int) -> Changes:
        """`busy`: tasks of inference by host (without its domain), of hosts whose workers are there; infinite where they are coming.
        `wanted`: training tasks that have nodes, wait for some or soon will; `waiting` are those that do, the first first.
        """
        changes = Changes()
        self._look(busy)
        for task in waiting:
            if len(self.has) < self.shares.slots and (nodes := self._slot(busy)):
                self.has[task] = changes.granted[task] = nodes
                self.free = [host for host in self.free if host not in nodes]
        some_wait = len(changes.granted) < len(waiting)
        lacking = min(wanted, self.shares.slots) * self.shares.slot_nodes - self._counted()
        if lacking > 0:
            changes.lent = self._lendable(busy, some_wait)[:lacking]
            self.emptying += changes.lent
        spare = max(0, -lacking) if wanted else len(self.free)
        if not some_wait and not self._there(busy):  # others are lost, and training wants what is yet to be played
            spare = max(spare, 1)
        back = sorted((host for host in self.free if host in self.shares.playing), key=self.rests, reverse=True)
        changes.returned = back[:spare]
        self.free = [host for host in self.free if host not in changes.returned]
        return changes

    def _look(self, busy: Mapping[str, float]) -> None:
        """Which nodes are empty by now, and which have no workers any more: they are nobody's."""
        named = self.known(busy)  # else workers go by other names
        for host in list(self.emptying):
            left = _of(host, busy) if named else 0
            if not left:
                self.emptying.remove(host)
            if left == 0:
                self.free.append(host)
        if named:
            self.free = [host for host in self.free if host in self.shares.kept or _of(host, busy) is not None]

    def _slot(self, busy: Mapping[str, float]) -> list[str]:
        """Nodes for a task, if they are there; where the job has no more than that, fewer, or such as rest."""
        size, well = self.shares.slot_nodes, [host for host in self.free if not self.rests(host)]
        if len(well) >= size:
            return well[:size]
        if self.emptying or self.has or self._lendable(busy, True):
            return []  # more will come
        return sorted(self.free, key=self.rests)[:size]

    def _lendable(self, busy: Mapping[str, float], some_wait: bool) -> list[str]:
        """Nodes that play and may train, those with the least to end first.

        One is left to play, unless the nodes that the job has left would be too few for a training task that waits.
        """
        if not self.shares.lends:
            return []
        there = self._there(busy)
        able = sorted((h for h in there if not self.rests(h)), key=lambda host: _of(host, busy) or 0)
        most = max(0, len(there) - 1)
        if some_wait and not self.has and len(self.free) + len(self.emptying) + most < self.shares.slot_nodes:
            most += 1
        return able[:most]

    def _there(self, busy: Mapping[str, float]) -> list[str]:
        """Nodes that play."""
        taken, named = self._taken(), self.known(busy)
        return [h for h in self.shares.playing if h not in taken and not (named and _of(h, busy) is None)]

    def _taken(self) -> set[str]:
        return {*self.free, *self.emptying, *(host for nodes in self.has.values() for host in nodes)}

    def _counted(self) -> int:
        well = sum(not self.rests(host) for host in self.free)
        return well + len(self.emptying) + self.shares.slot_nodes * len(self.has)


def _of(host: str, busy: Mapping[str, float]) -> float | None:
    """Tasks on a host; None where it has no workers."""
    return busy.get(short(host))
