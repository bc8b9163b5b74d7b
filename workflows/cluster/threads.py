"""Threads for Parsl's tasks on one machine: what waits goes in the order of the plan, and executors share the cores.

Parsl's own threads begin tasks in the order in which they became ready, each executor for itself. Here the tasks of executors that
`weigh` take that many cores each from one number of cores, the first of the plan first; so a task that nobody waits for yet fills
the cores that others leave, and takes none from them. An executor of weight 0 has its threads and asks for no core.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import Future
from heapq import heappop, heappush
from itertools import count
from typing import Any

from parsl.executors.base import ParslExecutor
from parsl.executors.threads import ThreadPoolExecutor


class Cores:
    """What the executors of one machine share."""

    def __init__(self, cores: int, weights: Mapping[str, int]) -> None:
        self.free, self.weights = cores, dict(weights)
        self._lock = threading.Lock()
        self._changed = {label: threading.Condition(self._lock) for label in weights}
        self._waiting: dict[str, list[tuple[float, int, Any]]] = {label: [] for label in weights}
        self._threads = dict.fromkeys(weights, 0)  # that have nothing to do
        self._number = count()
        self._closed: set[str] = set()

    def put(self, label: str, priority: float, work: Any) -> None:
        with self._lock:
            heappush(self._waiting[label], (priority, next(self._number), work))
            self._changed[label].notify()

    def take(self, label: str) -> Any:
        """What a thread of this executor is to do next, its cores taken; None when the executor was shut and nothing waits."""
        with self._lock:
            self._threads[label] += 1
            while not self._turn(label):
                if label in self._closed and not self._waiting[label]:
                    return None
                self._changed[label].wait()
            self._threads[label] -= 1
            self.free -= self.weights[label]
            work = heappop(self._waiting[label])[2]
            self._tell_others()
            return work

    def give_back(self, label: str) -> None:
        if self.weights[label]:
            with self._lock:
                self.free += self.weights[label]
                self._tell_others()

    def close(self, label: str) -> None:
        with self._lock:
            self._closed.add(label)
            self._changed[label].notify_all()

    def _turn(self, label: str) -> bool:
        """Whether its first task may begin: no other that could begin now stands before it in the plan."""
        waiting, weight = self._waiting[label], self.weights[label]
        if not waiting or weight > self.free:
            return False
        return not weight or all(
            not (self._waiting[other] and self._threads[other] and self.weights[other] <= self.free)
            or waiting[0][:2] < self._waiting[other][0][:2]
            for other in self.weights
            if other != label and self.weights[other]
        )

    def _tell_others(self) -> None:
        for label, weight in self.weights.items():
            if weight and self._waiting[label]:
                self._changed[label].notify()


class Threads(ThreadPoolExecutor):
    """An executor of threads. A task's resource specification may hold its `priority`: the least goes first."""

    def __init__(self, label: str, max_threads: int, cores: Cores) -> None:
        super().__init__(label=label, max_threads=max_threads)
        self.cores = cores

    def start(self) -> None:
        names = [f"{self.label}_{number}" for number in range(self.max_threads)]
        self._threads = [threading.Thread(target=self._work, name=name, daemon=True) for name in names]
        for thread in self._threads:
            thread.start()

    def submit(self, func: Any, resource_specification: Mapping[str, Any], *args: Any, **kwargs: Any) -> Future:
        future: Future = Future()
        priority = resource_specification.get("priority", float("inf"))
        self.cores.put(self.label, priority, (future, func, args, kwargs))
        return future

    def shutdown(self, block: bool = True) -> None:
        """What waits is done first, unless it was cancelled."""
        self.cores.close(self.label)
        for thread in self._threads if block else ():
            thread.join()
        ParslExecutor.shutdown(self)

    def _work(self) -> None:
        while work := self.cores.take(self.label):
            future, func, args, kwargs = work
            try:
                if future.set_running_or_notify_cancel():
                    _carry_out(future, func, args, kwargs)
            finally:
                self.cores.give_back(self.label)
            del work, future, func, args, kwargs  # a thread that waits would keep what they hold


def _carry_out(future: Future, func: Any, args: Any, kwargs: Any) -> None:
    try:
        result = func(*args, **kwargs)
    except BaseException as error:  # a SystemExit too is its caller's to see
        future.set_exception(error)
    else:
        future.set_result(result)
