"""A run on one machine, simulated: executors with so many slots each, cores that all of them share. For the local site.

Tasks begin in the order of the plan where a slot and, of executors that weigh, their cores are free (workflows/cluster/threads.py). What
is at work shares the cores evenly, and the driver's own threads share one, since Python runs one of them at a time. Nothing fails
and nothing varies: the work of each task is given.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Task:
    """One of the plan."""

    label: str  # of its executor
    needs: tuple[int, ...]  # numbers of tasks before it
    work: float  # core-seconds
    delay: float = 0.0  # seconds before that, in which it waits and needs no core
    load: float = 0.0  # core-seconds more in a worker's first task of this label
    driver: bool = False  # it runs in a thread of the driver


@dataclass(frozen=True, slots=True)
class Machine:
    """What there is to run on."""

    cores: int
    slots: Mapping[str, int]  # by executor
    weights: Mapping[str, int]  # cores that a task of it takes; 0 = it asks for none
    threads: Mapping[str, int]  # cores that a task of it can use


@dataclass(slots=True, eq=False)
class _Running:
    number: int
    work: float
    delay: float
    width: int  # cores that it can use
    driver: bool


def ends(tasks: Sequence[Task], machine: Machine) -> list[float]:
    """When each task ends, in seconds from the first's beginning."""
    waits = [len(set(task.needs)) for task in tasks]
    after: list[list[int]] = [[] for _ in tasks]
    for number, task in enumerate(tasks):
        for need in set(task.needs):
            after[need].append(number)
    ready = [number for number, count in enumerate(waits) if not count]
    slots, cores = (
        dict(machine.slots),
        max([machine.cores, *(machine.slots[k] * w for k, w in machine.weights.items())]),
    )
    cold = dict(machine.slots)  # workers that have done nothing yet
    running: list[_Running] = []
    found, now = [0.0] * len(tasks), 0.0
    while ready or running:
        passed_over = []
        while ready:
            number = heapq.heappop(ready)
            task = tasks[number]
            weight = machine.weights.get(task.label, 0)
            if slots[task.label] < 1 or weight > cores:
                passed_over.append(number)
                continue
            slots[task.label] -= 1
            cores -= weight
            load = task.load if cold[task.label] > 0 else 0.0
            cold[task.label] -= 1
            running.append(
                _Running(number, task.work + load, task.delay, machine.threads.get(task.label, 1), task.driver)
            )
        ready = passed_over  # still a heap: it is sorted
        now += _advance(running, machine.cores)
        for one in [one for one in running if one.work <= ROUNDING and one.delay <= ROUNDING]:
            running.remove(one)
            label = tasks[one.number].label
            slots[label] += 1
            cores += machine.weights.get(label, 0)
            found[one.number] = now
            for other in after[one.number]:
                waits[other] -= 1
                if not waits[other]:
                    heapq.heappush(ready, other)
    return found


def _advance(running: Sequence[_Running], cores: int) -> float:
    """Works on until something ends, a task or its delay; how long that took."""
    working = [one for one in running if one.delay <= ROUNDING]
    in_driver = sum(one.driver for one in working)
    speeds = {one: 1 / in_driver if one.driver else float(one.width) for one in working}
    squeeze = min(1.0, cores / max(sum(speeds.values()), ROUNDING))
    passed = min(
        [one.work / (speeds[one] * squeeze) for one in working] + [one.delay for one in running if one not in speeds]
    )
    for one in running:
        if one in speeds:
            one.work -= speeds[one] * squeeze * passed
        else:
            one.delay -= passed
    return passed
