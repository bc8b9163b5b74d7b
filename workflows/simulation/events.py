"""A discrete-event simulation of a run on N nodes: tasks start when what they need is done and a worker is free, nodes fail, jobs end.

Where tasks may run is the placement of a site with a worker a tile: inference on tiles, training on whole nodes, the rest on
cores. Tasks wait in the order of the plan, so a round's evaluation goes before the next round's plays. A round trains on
`training_nodes`, which are set aside for the whole job (`dedicated`) or lent by inference: as they fall idle, and until all agents
are trained. Tasks that could not finish before the end of a job are not begun, but for training, which saves its state and goes on
in the next one. A task whose node fails begins anew once that is noticed, and the node is lost for the job. The same seed gives the
same run.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from apps.records import MeritError
from workflows.simulation.shape import Group
from workflows.simulation.times import Times

LATE = 2.0  # standard deviations of a task's time that must fit before the end of a job
DRAWS = 1 << 14


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

    @property
    def utilisation(self) -> float:
        return self.busy / self.offered if self.offered else 0.0

    @property
    def waiting(self) -> float:
        """Tile-seconds in which there was nothing to do."""
        return self.offered - self.busy - self.lost - self.loading - self.dead


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


@dataclass(slots=True, eq=False)
class Job:
    """An allocation: what its nodes have to spare."""

    end: float
    cores: int
    idle: list[int]  # tiles of each node that nobody uses
    loaded: list[int]  # tiles of each node whose worker has its model
    free: list[int]  # a node for each idle tile; entries of nodes that are gone or set aside are passed over
    aside: set[int]  # nodes that training has to itself
    gone: dict[int, float] = field(default_factory=dict)  # failed nodes, since when
    at_work: dict[int, set[Task]] = field(default_factory=dict)  # of each node; −1: of cores
    unnoticed: int = 0  # tasks of failed nodes that are thought to run
    events: list = field(default_factory=list)  # (time, number, what, of which)


class Simulation:
    """`run` once; all times in seconds."""

    def __init__(
        self,
        groups: Sequence[Group],
        times: Times,
        nodes: int,
        training_nodes: int = 1,
        dedicated: bool = False,
        seed: int = 0,
    ) -> None:
        self.groups, self.times, self.nodes = list(groups), times, nodes
        self.training_nodes, self.dedicated = min(training_nodes, nodes), dedicated
        if dedicated and not 0 < training_nodes < nodes:
            raise MeritError(
                f"{training_nodes} of {nodes} nodes set aside for training leave none for one or the other"
            )
        self.trained: dict[tuple[int, int], float] = {}  # share of a training task that an earlier job did
        self.rng, self.draws = np.random.default_rng(seed), iter(())
        self.now, self.number, self.jobs, self.failures = 0.0, 0, 0, 0
        self.after: list[list[tuple[int, bool]]] = [[] for _ in groups]
        for number, group in enumerate(groups):
            for need in group.needs:
                self.after[need.group].append((number, need.each))
        self.whole_left = [sum(not need.each for need in group.needs) for group in groups]
        self.each_left = [[sum(need.each for need in group.needs)] * group.count for group in groups]
        self.left = [group.count for group in groups]
        self.ready: dict[str, list[tuple[int, int]]] = {}
        self.sums = dict.fromkeys(("offered", "busy", "lost", "loading", "dead"), 0.0)

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
        start, tiles = self.now, self.times.tiles
        end = start + self.times.job_hours * 3600 if self.times.job_hours else math.inf
        aside = set(range(self.training_nodes)) if self.dedicated else set()
        free = [node for node in range(self.nodes) if node not in aside for _ in range(tiles)]
        self.job = Job(end, self.times.cores * self.nodes, [tiles] * self.nodes, [0] * self.nodes, free, aside)
        self._fail_later()
        self._begin()
        while self.job.unnoticed or any(self.job.at_work.values()):
            if self.job.events[0][0] >= end:
                self._cut(end)
                break
            self.now, _, what, of = heapq.heappop(self.job.events)
            what(of)
        self.sums["offered"] += (self.now - start) * self.nodes * tiles
        self.sums["dead"] += sum(self.now - since for since in self.job.gone.values()) * tiles
        if self.now == start and any(self.left):
            raise MeritError(
                f"no task fits into a job of {self.times.job_hours} hours; give longer jobs (job_hours), or smaller shards"
            )

    def _cut(self, end: float) -> None:
        """The walltime: what still runs, or is thought to, begins anew in the next job."""
        self.now = end
        for task in {task for tasks in self.job.at_work.values() for task in tasks}:
            self._interrupt(task)
            self._wait(task.group, [task.index])
        for _, _, what, task in self.job.events:
            if what == self._notice:
                self._wait(task.group, [task.index])

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
        queue = self.ready.setdefault(self.groups[group].label, [])
        for index in indices:
            heapq.heappush(queue, (group, index))

    def _later(self, seconds: float, what: Callable, of: object) -> None:
        self.number += 1
        heapq.heappush(self.job.events, (self.now + seconds, self.number, what, of))

    # what may begin

    def _begin(self) -> None:
        for label in ("training", "inference", "cpu", "network"):
            queue, place = self.ready.get(label, []), self._place_of(label)
            while queue and (task := place(*queue[0])):
                heapq.heappop(queue)
                self._start(task)

    def _place_of(self, label: str) -> Callable[[int, int], Task | None]:
        return {"training": self._on_nodes, "inference": self._on_tile}.get(label, self._on_core)

    def _start(self, task: Task) -> None:
        group = self.groups[task.group]
        left = 1 - self.trained.get((task.group, task.index), 0.0)
        task.seconds = self._median(group, len(task.nodes)) * self._factor() * left
        for node in task.nodes or (-1,):
            self.job.at_work.setdefault(node, set()).add(task)
        self._later(task.loading + task.seconds, self._end, task)

    def _fits(self, seconds: float) -> bool:
        return self.now + seconds * math.exp(LATE * self.times.spread) < self.job.end

    def _on_core(self, group: int, index: int) -> Task | None:
        if not self.job.cores or not self._fits(self._median(self.groups[group], 0)):
            return None
        self.job.cores -= 1
        return Task(group, index, self.now, 0)

    def _on_tile(self, group: int, index: int) -> Task | None:
        job = self.job
        if not self._fits(self.times.load + self._median(self.groups[group], 0)):
            return None
        while job.free:
            node = job.free.pop()
            if node in job.gone or node in job.aside or not job.idle[node]:
                continue
            used = self.times.tiles - job.idle[node]
            job.idle[node] -= 1
            new = used >= job.loaded[node]
            job.loaded[node] += new
            return Task(group, index, self.now, 1, (node,), self.times.load * new)
        return None

    def _on_nodes(self, group: int, index: int) -> Task | None:
        """Whole nodes for a training task: an equal share of those that a round trains on."""
        job, tiles = self.job, self.times.tiles
        count = min(self.times.train.most, max(1, self.training_nodes // self.groups[group].count))
        if not self.dedicated:
            self._borrow(count)
        idle = sorted(node for node in job.aside if node not in job.gone and job.idle[node] == tiles)
        count = min(count, len(job.aside - job.gone.keys())) or 1
        if len(idle) < count:
            return None
        for node in idle[:count]:
            job.idle[node] = 0
        return Task(group, index, self.now, tiles * count, tuple(idle[:count]), self.times.load)

    def _borrow(self, count: int) -> None:
        """Keeps inference off the nodes that the training tasks at work, and those that wait, need: those with the most idle tiles."""
        job = self.job
        busy = sum(len(task.nodes) for task in self._training())
        wanted = min(max(self.training_nodes, count), count * len(self.ready["training"]) + busy)
        lacking = wanted - len(job.aside - job.gone.keys())
        if lacking > 0:
            others = [node for node in range(self.nodes) if node not in job.aside and node not in job.gone]
            job.aside |= set(heapq.nlargest(lacking, others, key=lambda node: job.idle[node]))

    def _training(self) -> set[Task]:
        running = {task for node in self.job.aside for task in self.job.at_work.get(node, ())}
        return {task for task in running if self.groups[task.group].label == "training"}

    # what happens

    def _end(self, task: Task) -> None:
        if task not in self.job.at_work.get(task.nodes[0] if task.nodes else -1, ()):
            return  # its node has failed
        self._leave(task)
        self.sums["loading"] += task.loading * task.tiles
        self.sums["busy"] += (self.now - task.start - task.loading) * task.tiles
        self._done(task.group, task.index)
        self._begin()

    def _leave(self, task: Task) -> None:
        """Takes a task off its places, which others may have."""
        job = self.job
        for node in task.nodes or (-1,):
            job.at_work[node].discard(task)
            if node >= 0 and node not in job.gone:
                job.idle[node] += task.tiles // len(task.nodes)
                job.free.append(node)
        job.cores += not task.nodes
        if not self.dedicated and self.groups[task.group].label == "training" and not self.ready["training"]:
            for node in task.nodes:
                job.aside.discard(node)
                job.free += [node] * self.times.tiles

    def _done(self, number: int, index: int) -> None:
        self.left[number] -= 1
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
        if node in self.job.gone or len(self.job.gone) == self.nodes - 1:
            return
        self.failures += 1
        self.job.gone[node] = self.now
        for task in list(self.job.at_work.get(node, ())):
            self.sums["lost"] += (self.now - task.start) * task.tiles
            self._leave(task)
            self.job.unnoticed += 1
            self._later(self.times.failures.notice, self._notice, task)

    def _notice(self, task: Task) -> None:
        self.job.unnoticed -= 1
        self._wait(task.group, [task.index])
        self._begin()

    def _median(self, group: Group, nodes: int) -> float:
        """Seconds of a task of a group, on so many nodes if it trains."""
        return self.times.train.on(nodes) if group.label == "training" else self.times.seconds(group.stage, group.kind)

    def _factor(self) -> float:
        """By which a task takes longer, or shorter, than the median."""
        factor = next(self.draws, None)
        if factor is None:
            self.draws = iter(np.exp(self.times.spread * self.rng.standard_normal(DRAWS)).tolist())
            factor = next(self.draws)
        return factor
