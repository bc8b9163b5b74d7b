"""Answers Parsl's tasks from the store, and joins identical tasks in flight.

Parsl asks it before it launches a task and tells it when one has ended. It looks at two keyword arguments, which every
stage's app has: `stage` and `key`; a task without them is always run. What a stage writes is its result, so nothing is
recorded here and no pickle is kept; a failed task leaves nothing and is tried again by the next run.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from parsl.dataflow.memoization import Memoizer

from apps import stages
from apps.platform.deadline import TooLate
from apps.records import Artifact, MeritError
from workflows.store import Store


class Stopped(MeritError):
    """The run is ending: no further task is begun."""


class StoreMemoizer(Memoizer):
    """`counts[stage, event]` and `listen(stage, key, event)` follow the tasks, for the progress display.

    Events: "found" in the store, "joined" to an identical task in flight, "begun", and then "made", "failed", or "late"
    where the job's time did not suffice.
    `listen` is called from Parsl's threads and must be quick.
    """

    def __init__(self, store: Store, listen: Callable[[str, str, str], None] | None = None):
        self.store = store
        self.counts: Counter[tuple[str, str]] = Counter()
        self._listen = listen
        self._lock = threading.Lock()
        self._owners: dict[str, int] = {}  # key -> id of the task that makes it
        self._begun: set[str] = set()  # of these keys, those whose task was begun
        self._joined: dict[str, list[Future]] = {}  # key -> who waits for it
        self._stopped = False
        self.before: Callable[[Any], Future | None] | None = (
            None  # what a task has to wait for (workflows/driver/retries.py)
        )
        self.after: Callable[[Any], None] | None = None  # told of each task that is over, however it ended

    def start(self, *, run_dir: str, config_run_dir: str) -> None:
        self._stopped = False

    def close(self) -> None:
        """From here on every task is refused; those that run may end."""
        self._stopped = True

    def check_memo(self, task: Any) -> Future | None:
        """A future with the artifact, or of the task that makes it; None means: run it."""
        if self._stopped:
            return _failed(Stopped("the run was stopped"))
        stage, key = _identity(task)
        if key is None:
            return None
        with self._lock:
            if self._owners.setdefault(key, task["id"]) != task["id"]:
                return self._join(stage, key)
        if self.before and (wait := self.before(task)):
            return wait
        found = self.store.find(stage, key)  # may read gigabytes, so not under the lock
        if found or key not in self._begun:  # an attempt that counts as lost may have come to its end
            self._begun.add(key)
            self._tell(stage, key, "found" if found else "begun")
        if not found and stage not in stages.LATE:
            self.store.wake(artifact for given in task["kwargs"].get("given", {}).values() for artifact in given)
        return _done(found) if found else None

    def update_memo_result(self, task: Any, r: Artifact) -> None:
        for future in self._close(task, "made"):
            future.set_result(r)

    def update_memo_exception(self, task: Any, e: BaseException) -> None:
        for future in self._close(task, "late" if isinstance(e, TooLate) else "failed"):
            future.set_exception(e)

    def count(self, event: str) -> int:
        """How many tasks of any stage had this event."""
        return sum(n for (_, what), n in self.counts.items() if what == event)

    def _join(self, stage: str, key: str) -> Future:
        future: Future = Future()
        future.set_running_or_notify_cancel()  # a cancelled future would refuse the result of the task it waits for
        self._joined.setdefault(key, []).append(future)
        self._tell(stage, key, "joined")
        return future

    def _close(self, task: Any, event: str) -> list[Future]:
        """Ends what `task` has in flight and gives up those who wait for it.

        Their futures are set outside of the lock: Parsl then calls back into this object at once.
        """
        stage, key = _identity(task)
        if key is not None and self.after:
            self.after(task)
        with self._lock:
            if key is None or self._owners.get(key) != task["id"]:
                return []
            del self._owners[key]
            self._begun.discard(key)
            waiting = self._joined.pop(key, [])
        if not task["from_memo"] and not (self._stopped and event == "failed"):  # it was ended, that is no fault
            self._tell(stage, key, event)
        return waiting

    def _tell(self, stage: str, key: str, event: str) -> None:
        self.counts[stage, event] += 1
        if self._listen:
            self._listen(stage, key, event)


def _identity(task: Any) -> tuple[str, str | None]:
    """The stage and key of a task; the key is None where it is no stage's."""
    kwargs = task["kwargs"]
    return kwargs.get("stage", ""), kwargs.get("key") if "stage" in kwargs else None


def _done(result: Artifact) -> Future:
    future: Future = Future()
    future.set_result(result)
    return future


def _failed(error: BaseException) -> Future:
    future: Future = Future()
    future.set_exception(error)
    return future
