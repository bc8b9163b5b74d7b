"""A discrete-event simulation of a run on N nodes: tasks start when what they need is done and a worker is free, nodes fail, jobs end.

Where tasks may run is the placement of a site with a worker a tile: inference on tiles, training on whole nodes, the rest on
cores. Tasks wait in the order of the plan, so a round's evaluation goes before the next round's plays. A round trains on
`training_nodes`, which are set aside for the whole job or lent by inference, an equal share for each agent; that and what else a
driver does is a `Policy`. Tasks that could not finish before the end of a job are not begun, but for training, which saves its
state and goes on in the next one. A task whose node fails begins anew once that is noticed, and the node is lost for the job. The
same seed gives the same run.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from apps.records import MeritError
from workflows.driver.overdue import MISSED
from workflows.simulation.placement import Nodes, Policy
from workflows.simulation.result import Result
from workflows.simulation.shape import Group
from workflows.simulation.times import Times
from workflows.simulation.waiting import Waiting

DRAWS = 1 << 14


@dataclass(slots=True, eq=False)
class Task:
    """At work."""

    group: int
    index: int
    start: float
    tiles: int  # that it holds; 0 for a task on a core
    nodes: tuple[int, ...] = ()
    loading: float = 0.0  # seconds at its start
    seconds: float = 0.0  # that it takes after that
    limit: float = 0.0  # seconds after which it is overdue


class Simulation:
    """`run` once; all times in seconds."""

    def __init__(
        self,
        groups: Sequence[Group],
        times: Times,
        nodes: int,
        training_nodes: int = 1,
        policy: Policy | None = None,
        seed: int = 0,
    ) -> None:
        self.groups, self.times, self.nodes = list(groups), times, nodes
        self.policy = policy = policy or Policy()
        self.training_nodes = min(training_nodes, nodes)
        if not policy.lends and not 0 < training_nodes < nodes:
            raise MeritError(
                f"{training_nodes} of {nodes} nodes set aside for training leave none for one or the other"
            )
        self.trained: dict[tuple[int, int], float] = {}  # share of a training task that an earlier job did
        self.rng, self.draws = np.random.default_rng(seed), iter(())
        self.now, self.jobs, self.failures = 0.0, 0, 0
        self.overdue, self.late = (math.exp(n * times.spread) for n in (policy.overdue, policy.late))
        self.queue = Waiting(groups)
        self.feeders = self.queue.feeders
        self.medians = [times.seconds(group.stage, group.kind) for group in groups]  # not of training
        self.sums = dict.fromkeys(("offered", "busy", "lost", "loading", "dead", "lent", "ending"), 0.0)

    def run(self) -> Result:
        while self.queue.anything_left():
            self._allocation()
        node_hours = self.sums["offered"] / self.times.tiles / 3600
        return Result(
            self.nodes, self.training_nodes, self.now / 3600, node_hours, self.jobs, self.failures, **self.sums
        )

    def _allocation(self) -> None:
        """One job, to its end or that of the run."""
        self.now += self.times.queue if self.jobs else 0
        self.jobs += 1
        start, times = self.now, self.times
        self.end = start + times.job_hours * 3600 if times.job_hours else math.inf
        self.place = Nodes(self.nodes, times.tiles, times.cores, self._kept())
        self.running: set[Task] = set()
        self.unnoticed = 0  # tasks of failed nodes that are thought to run
        self.copies: dict[tuple[int, int], list[Task]] = {}  # all who do a task that was begun twice
        self.events: list = []  # (time, number, what, of which)
        self.number = 0
        self._fail_later()
        self._begin()
        while (self.running or self.unnoticed) and self.queue.anything_left():
            if self.events[0][0] >= self.end:
                self._cut()
                break
            before = self.now
            self.now, _, what, of = heapq.heappop(self.events)
            self._count_idle(self.now - before)
            what(of)
        if not self.queue.anything_left():  # who is still at what another has done is ended
            self.sums["lost"] += sum((self.now - task.start) * task.tiles for task in self.running)
        self.sums["offered"] += (self.now - start) * self.nodes * times.tiles
        self.sums["dead"] += sum(self.now - since for since in self.place.gone.values()) * times.tiles
        if self.now == start and self.queue.anything_left():
            raise MeritError(
                f"no task fits into a job of {times.job_hours} hours; give longer jobs (job_hours), or smaller shards"
            )

    def _kept(self) -> int:
        """Nodes that never play; one does."""
        return self.training_nodes if not self.policy.lends else min(self.policy.kept, self.nodes - 1)

    def _count_idle(self, passed: float) -> None:
        self.sums["lent"] += self.place.lent_idle * passed
        if self.queue.ready.get("inference"):  # something waits, and does not fit
            self.sums["ending"] += self.place.open_idle * passed

    def _cut(self) -> None:
        """The walltime: what still runs, or is thought to, begins anew in the next job."""
        self._count_idle(self.end - self.now)
        self.now = self.end
        for task in (cut := list(self.running)):
            self._interrupt(task)
        unnoticed = [task for _, _, what, task in self.events if what == self._notice]
        self.running.clear()
        for place in sorted({(task.group, task.index) for task in (*cut, *unnoticed)}):
            self._again(*place)

    def _interrupt(self, task: Task) -> None:
        """At a job's end training keeps what it has done; anything else is lost."""
        ran = self.now - task.start
        if task.group not in self.feeders:
            self.sums["lost"] += ran * task.tiles
            return
        worked = max(0.0, ran - task.loading)
        self.sums["loading"] += (ran - worked) * task.tiles
        self.sums["busy"] += worked * task.tiles
        done = self.trained.get((task.group, task.index), 0.0)
        self.trained[task.group, task.index] = done + (1 - done) * min(1.0, worked / task.seconds)

    def _again(self, group: int, index: int) -> None:
        """It waits once more, unless somebody else is at it."""
        if not any(task in self.running for task in self.copies.get((group, index), ())):
            self.queue.put_again(group, index)

    def _later(self, seconds: float, what: Callable, of: object) -> None:
        self.number += 1
        heapq.heappush(self.events, (self.now + seconds, self.number, what, of))

    # what may begin

    def _begin(self) -> None:
        place, take = self.place, self.queue.take
        while task := take("training", self._on_nodes):
            self._start(task)
        while place.open_idle and (task := take("inference", self._on_tile)):
            self._start(task)
        for label in ("cpu", "network"):
            while place.cores and (task := take(label, self._on_core)):
                self._start(task)

    def _start(self, task: Task) -> None:
        median = self.medians[task.group]
        if task.group in self.feeders:
            left = 1 - self.trained.get((task.group, task.index), 0.0)
            median = self.times.train.on(len(task.nodes)) * left
        task.seconds = median * self._factor()
        task.limit = task.loading + median * self.overdue
        self.running.add(task)
        self._later(task.loading + task.seconds, self._end, task)
        if self.copies and (copies := self.copies.get((task.group, task.index))):
            copies.append(task)
            return
        if self._may_be_overdue(task) and task.seconds > median * self.overdue:
            self._later(task.limit, self._overdue, task)

    def _lend_soon(self, number: int) -> None:
        """Lends nodes to training for which few plays are left, so that they are empty when it may begin."""
        few = self.policy.soon * self.nodes * self.times.tiles
        for n in self.queue.fed[number] if self.policy.lends else ():
            if self.queue.left[n] and sum(self.queue.left[f] for f in self.queue.feeders[n]) <= few:
                self.place.lend(self._share(self.groups[n]) * self.groups[n].count)

    def _fits(self, seconds: float) -> bool:
        return self.now + seconds * self.late < self.end

    def _on_core(self, group: int, index: int) -> Task | None:
        if not self._fits(self.medians[group]):
            return None
        self.place.cores -= 1
        return Task(group, index, self.now, 0)

    def _on_tile(self, group: int, index: int) -> Task | None:
        if not self._fits(self.times.load + self.medians[group]):
            return None
        found = self.place.tile()
        return Task(group, index, self.now, 1, found[:1], self.times.load * found[1]) if found else None

    def _share(self, group: Group) -> int:
        """Nodes of one of its tasks: an equal share of those that a round trains on."""
        return min(self.times.train.most, max(1, self.training_nodes // group.count))

    def _on_nodes(self, group: int, index: int) -> Task | None:
        """Whole nodes for a training task."""
        count, waiting = self._share(self.groups[group]), len(self.queue.waiting[group])
        if self.policy.lends:
            busy = sum(len(task.nodes) for task in self._training())
            self.place.lend(min(max(self.training_nodes, count), count * waiting + busy))
        count = min(count, len(self.place.aside - self.place.gone.keys())) or 1
        nodes = self.place.whole(count)
        return Task(group, index, self.now, self.times.tiles * count, nodes, self.times.load) if nodes else None

    def _training(self) -> set[Task]:
        return {task for task in self.running if task.group in self.feeders}

    # what happens

    def _end(self, task: Task) -> None:
        if task not in self.running:
            return  # its node has failed
        self._leave(task)
        if self.queue.over[task.group][task.index]:
            self.sums["lost"] += (self.now - task.start) * task.tiles
        else:
            self.sums["loading"] += task.loading * task.tiles
            self.sums["busy"] += (self.now - task.start - task.loading) * task.tiles
            self.queue.done(task.group, task.index)
            self._lend_soon(task.group)
        self._begin()

    def _leave(self, task: Task) -> None:
        """Takes a task off its places, which others may have."""
        self.running.discard(task)
        if not task.nodes:
            self.place.cores += 1
            return
        self.place.give_back(task.nodes, task.tiles // len(task.nodes))
        if task.group in self.feeders and self.policy.lends and not self.queue.ready.get("training"):
            self.place.open(self.place.aside - {n for other in self._training() for n in other.nodes})

    def _fail_later(self) -> None:
        failures = self.times.failures
        rate = failures.per_hour / 3600 * self.nodes / failures.nodes
        if rate:
            self._later(self.rng.exponential(1 / rate), self._fail, None)

    def _fail(self, _: None) -> None:
        node = int(self.rng.integers(self.nodes))
        self._fail_later()
        if node in self.place.gone or len(self.place.gone) == self.nodes - 1:
            return
        self.failures += 1
        tasks = [task for task in self.running if node in task.nodes]
        self.place.fail(node, self.now)
        due = [
            max(0.0, task.start + task.limit - self.now) if self._may_be_overdue(task) else math.inf for task in tasks
        ]
        for task, seconds in zip(tasks, noticed(due, self.times.failures.notice), strict=True):
            self.sums["lost"] += (self.now - task.start) * task.tiles
            self._leave(task)
            self.unnoticed += 1
            self._later(seconds, self._notice, task)

    def _notice(self, task: Task) -> None:
        self.unnoticed -= 1
        self._again(task.group, task.index)
        self._begin()

    def _may_be_overdue(self, task: Task) -> bool:
        return bool(self.policy.overdue) and self.groups[task.group].label == "inference"

    def _overdue(self, task: Task) -> None:
        """Still at work, beyond what is likely: once more elsewhere. Who ends first counts, the other one ends all the same."""
        if task in self.running:
            self.copies[task.group, task.index] = [task]
            self.queue.put(task.group, [task.index])
            self._begin()

    def _factor(self) -> float:
        """By which a task takes longer, or shorter, than the median."""
        factor = next(self.draws, None)
        if factor is None:
            self.draws = iter(np.exp(self.times.spread * self.rng.standard_normal(DRAWS)).tolist())
            factor = next(self.draws)
        return factor


def noticed(due: Sequence[float], notice: float) -> list[float]:
    """Seconds until each task of a node that has failed is begun anew, where they are overdue in so many seconds.

    With the third that is missed all are, and at the latest when the failure is noticed otherwise.
    """
    missed = sorted(due)[MISSED - 1] if len(due) >= MISSED else math.inf
    return [min(own, missed, notice) for own in due]
