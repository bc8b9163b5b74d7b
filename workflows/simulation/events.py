"""A discrete-event simulation of a run on N nodes: tasks start when what they need is done and a worker is free, nodes fail, jobs end.

Where tasks may run is the placement of a site with a worker a tile: inference on tiles, training on whole nodes, the rest on
cores. Tasks wait in the order of the plan, so a round's evaluation goes before the next round's plays. A round trains on
`training_nodes`, which are set aside for the whole job or lent by inference until all agents are trained; what else a driver may do
is said by a `Policy`. Tasks that could not finish before the end of a job are not begun, but for training, which saves its
state and goes on in the next one. A task whose node fails begins anew once that is noticed, and the node is lost for the job. The
same seed gives the same run.
"""

from __future__ import annotations

import heapq
import math
from bisect import insort
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from apps.records import MeritError
from workflows.simulation.placement import BEST, Nodes, Policy
from workflows.simulation.result import Result
from workflows.simulation.shape import Group
from workflows.simulation.times import Times

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
        policy: Policy = BEST,
        seed: int = 0,
    ) -> None:
        self.groups, self.times, self.nodes, self.policy = list(groups), times, nodes, policy
        self.training_nodes = min(training_nodes, nodes)
        if policy.dedicated and not 0 < training_nodes < nodes:
            raise MeritError(
                f"{training_nodes} of {nodes} nodes set aside for training leave none for one or the other"
            )
        self.trained: dict[tuple[int, int], float] = {}  # share of a training task that an earlier job did
        self.rng, self.draws = np.random.default_rng(seed), iter(())
        self.now, self.jobs, self.failures = 0.0, 0, 0
        self.overdue, self.late = (math.exp(n * times.spread) for n in (policy.overdue, policy.late))
        self._wire()
        self.ready: dict[str, list[int]] = {}  # groups with tasks that wait, in the plan's order
        self.waiting: list[deque[int]] = [deque() for _ in groups]
        self.sums = dict.fromkeys(("offered", "busy", "lost", "loading", "dead", "lent", "ending"), 0.0)

    def _wire(self) -> None:
        """Who waits for whom."""
        groups = self.groups
        self.after: list[list[tuple[int, bool]]] = [[] for _ in groups]
        for number, group in enumerate(groups):
            for need in group.needs:
                self.after[need.group].append((number, need.each))
        self.whole_left = [sum(not need.each for need in group.needs) for group in groups]
        self.each_left = [[sum(need.each for need in group.needs)] * group.count for group in groups]
        self.medians = [self.times.seconds(group.stage, group.kind) for group in groups]  # not of training
        self.left, self.unbegun = [[group.count for group in groups] for _ in range(2)]
        self.over = [bytearray(group.count) for group in groups]
        self.feeders = {n: _feeders(groups, n) for n, group in enumerate(groups) if group.label == "training"}
        self.hungry: list[list[int]] = [[] for _ in groups]  # training groups that a group feeds
        for number, fed in self.feeders.items():
            for other in fed:
                self.hungry[other].append(number)

    def run(self) -> Result:
        for number, group in enumerate(self.groups):
            if not group.needs:
                self._wait(number, range(group.count))
        while any(self.left):
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
        self.place = Nodes(self.nodes, times.tiles, times.cores, self.training_nodes * self.policy.dedicated)
        self.running: set[Task] = set()
        self.unnoticed = 0  # tasks of failed nodes that are thought to run
        self.copies: dict[tuple[int, int], list[Task]] = {}  # all who do a task that was begun twice
        self.events: list = []  # (time, number, what, of which)
        self.number = 0
        self._fail_later()
        self._begin()
        while self.running or self.unnoticed:
            if self.events[0][0] >= self.end:
                self._cut()
                break
            before = self.now
            self.now, _, what, of = heapq.heappop(self.events)
            self._count_idle(self.now - before)
            what(of)
        self.sums["offered"] += (self.now - start) * self.nodes * times.tiles
        self.sums["dead"] += sum(self.now - since for since in self.place.gone.values()) * times.tiles
        if self.now == start and any(self.left):
            raise MeritError(
                f"no task fits into a job of {times.job_hours} hours; give longer jobs (job_hours), or smaller shards"
            )

    def _count_idle(self, passed: float) -> None:
        self.sums["lent"] += self.place.lent_idle * passed
        if self.ready.get("inference"):  # something waits, and does not fit
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
            self._wait_again(*place)

    def _interrupt(self, task: Task) -> None:
        """At a job's end training keeps what it has done; anything else is lost."""
        ran = self.now - task.start
        if self.groups[task.group].label != "training":
            self.sums["lost"] += ran * task.tiles
            return
        worked = max(0.0, ran - task.loading)
        self.sums["loading"] += (ran - worked) * task.tiles
        self.sums["busy"] += worked * task.tiles
        done = self.trained.get((task.group, task.index), 0.0)
        self.trained[task.group, task.index] = done + (1 - done) * min(1.0, worked / task.seconds)

    def _wait(self, group: int, indices: Iterable[int]) -> None:
        if not self.waiting[group]:
            insort(self.ready.setdefault(self.groups[group].label, []), group)
        self.waiting[group].extend(indices)

    def _wait_again(self, group: int, index: int) -> None:
        """Unless it is done, or waits already."""
        alive = any(task in self.running for task in self.copies.get((group, index), ()))
        if not self.over[group][index] and index not in self.waiting[group] and not alive:
            self.unbegun[group] += 1
            self._wait(group, [index])

    def _later(self, seconds: float, what: Callable, of: object) -> None:
        self.number += 1
        heapq.heappush(self.events, (self.now + seconds, self.number, what, of))

    # what may begin

    def _begin(self) -> None:
        ready, place = self.ready, self.place
        while ready.get("training") and (task := self._next("training", self._on_nodes)):
            self._start(task)
        while place.open_idle and ready.get("inference") and (task := self._next("inference", self._on_tile)):
            self._start(task)
        for label in ("cpu", "network"):
            while place.cores and ready.get(label) and (task := self._next(label, self._on_core)):
                self._start(task)

    def _next(self, label: str, place: Callable[[int, int], Task | None]) -> Task | None:
        """The first task that a place is found for: where one does not fit, a shorter one may."""
        for group in list(self.ready[label]):
            queue = self.waiting[group]
            while queue and self.over[group][queue[0]]:  # a copy that came too late
                queue.popleft()
            task = place(group, queue[0]) if queue else None
            if task:
                queue.popleft()
            if not queue:
                self.ready[label].remove(group)
            if task:
                return task
        return None

    def _start(self, task: Task) -> None:
        place, trains = (task.group, task.index), task.tiles > 1 or self.groups[task.group].label == "training"
        median = self._median(task.group, len(task.nodes) if trains else 0)
        if trains:
            median *= 1 - self.trained.get(place, 0.0)
        task.seconds = median * self._factor()
        task.limit = task.loading + median * self.overdue
        self.running.add(task)
        self._later(task.loading + task.seconds, self._end, task)
        if place in self.copies:
            self.copies[place].append(task)
        elif self.policy.overdue and task.tiles and task.loading + task.seconds > task.limit:
            self._later(task.limit, self._overdue, task)
        if not self.copies.get(place):
            self._begun(task.group)

    def _begun(self, number: int) -> None:
        """Lends nodes to a training task whose last plays have begun, so that they have ended when it may begin."""
        self.unbegun[number] -= 1
        if self.policy.ahead and not self.policy.dedicated and self.unbegun[number] <= 0:
            for group in self.hungry[number]:
                if self.left[group] and all(self.unbegun[fed] <= 0 for fed in self.feeders[group]):
                    self.place.lend(self._share(self.groups[group]) * self.groups[group].count)

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
        count, waiting = self._share(self.groups[group]), len(self.waiting[group])
        if not self.policy.dedicated:
            busy = sum(len(task.nodes) for task in self._training())
            self.place.lend(min(max(self.training_nodes, count), count * waiting + busy))
            if self.policy.spread_out and not self.ready.get("inference"):
                self.place.lend(min(self.nodes, busy + waiting * self.times.train.most))
                count = max(count, min(self.times.train.most, len(self.place.whole_idle()) // waiting))
        count = min(count, len(self.place.aside - self.place.gone.keys())) or 1
        nodes = self.place.whole(count)
        return Task(group, index, self.now, self.times.tiles * count, nodes, self.times.load) if nodes else None

    def _training(self) -> set[Task]:
        return {task for task in self.running if self.groups[task.group].label == "training"}

    # what happens

    def _end(self, task: Task) -> None:
        if task not in self.running:
            return  # its node has failed, or another was first
        self._leave(task)
        self.sums["loading"] += task.loading * task.tiles
        self.sums["busy"] += (self.now - task.start - task.loading) * task.tiles
        for other in self.copies.pop((task.group, task.index), ()):
            if other in self.running:
                self.sums["lost"] += (self.now - other.start) * other.tiles
                self._leave(other)
        self._done(task.group, task.index)
        self._begin()

    def _leave(self, task: Task) -> None:
        """Takes a task off its places, which others may have."""
        self.running.discard(task)
        if not task.nodes:
            self.place.cores += 1
            return
        self.place.give_back(task.nodes, task.tiles // len(task.nodes))
        if not self.policy.dedicated and self.groups[task.group].label == "training" and not self.ready.get("training"):
            self.place.open(self.place.aside - {n for other in self._training() for n in other.nodes})

    def _done(self, number: int, index: int) -> None:
        self.left[number] -= 1
        self.over[number][index] = 1
        for other, each in self.after[number]:
            if each:
                self.each_left[other][index] -= 1
                if not self.each_left[other][index] and not self.whole_left[other]:
                    self._wait(other, [index])
            elif not self.left[number]:
                self.whole_left[other] -= 1
                if not self.whole_left[other]:
                    self._wait(other, [i for i, left in enumerate(self.each_left[other]) if not left])

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
        for task in tasks:
            self.sums["lost"] += (self.now - task.start) * task.tiles
            self._leave(task)
            self.unnoticed += 1
            overdue = max(0.0, task.start + task.limit - self.now) if self.policy.overdue else math.inf
            self._later(min(self.times.failures.notice, overdue), self._notice, task)

    def _notice(self, task: Task) -> None:
        self.unnoticed -= 1
        self._wait_again(task.group, task.index)
        self._begin()

    def _overdue(self, task: Task) -> None:
        """Still at work, beyond what is likely: once more, and whoever ends first."""
        if task in self.running:
            self.copies[task.group, task.index] = [task]
            self._wait(task.group, [task.index])
            self._begin()

    def _median(self, group: int, nodes: int) -> float:
        """Seconds of a task of a group, on so many whole nodes if it trains."""
        return self.times.train.on(nodes) if nodes else self.medians[group]

    def _factor(self) -> float:
        """By which a task takes longer, or shorter, than the median."""
        factor = next(self.draws, None)
        if factor is None:
            self.draws = iter(np.exp(self.times.spread * self.rng.standard_normal(DRAWS)).tolist())
            factor = next(self.draws)
        return factor


def _feeders(groups: Sequence[Group], number: int) -> set[int]:
    """The plays and replays that a training group waits for, as far back as the last training."""
    found, seen, todo = set(), {number}, [number]
    while todo:
        for need in groups[todo.pop()].needs:
            group = groups[need.group]
            if need.group in seen or group.label == "training":
                continue
            seen.add(need.group)
            todo.append(need.group)
            if group.label == "inference":
                found.add(need.group)
    return found
