"""Tries a task again that is not at fault itself: on another node after a while, or once an input that is gone was made anew.

Parsl asks `cost` what a failure weighs (its `retry_handler`) and launches the task again at once where it was no more than the
site's `retries`. Before every launch the memoizer asks `before`, which answers with a future where there is something to wait
for: no thread is kept waiting. Which failures these are: apps/platform/faults.py. That they end: a task is tried a number of
times, then it fails with all that was said.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apps import stages
from apps.platform import faults
from apps.records import MeritError
from workflows.driver.alarm import Alarm
from workflows.driver.lending import Granted, Lending
from workflows.driver.resting import Resting

if TYPE_CHECKING:
    from parsl import Config

FIRST_S, LONGEST_S = 2.0, 60.0  # before the first attempt after a failure; it doubles
REMADE = 3  # times that the inputs of one task are made again


class GaveUp(MeritError):
    """A task failed as often as it may."""


class Again(Exception):
    """No fault: what a task that is tried again had to wait for has come."""


class Retries:
    """The failed attempts of one run. `most` are allowed of each task; `say` tells them, a line each."""

    def __init__(self, most: int, folder: Path, say: Callable[[str], None]) -> None:
        self.most, self.say, self.resting = most, say, Resting(folder, say)
        self.lending: Lending | None = None
        self._alarm, self._over = Alarm(), False
        self._lock = threading.Lock()
        self._tasks: dict[str, Mapping[str, Any]] = {}  # key -> Parsl's record of who makes it
        self._waits: dict[int, Future] = {}  # task -> what its next attempt waits for
        self._said: dict[int, list[str]] = {}  # task -> its failures so far
        self._remade: Counter[int] = Counter()

    def govern(self, config: Config, lending: Lending | None = None) -> None:
        """Makes a site's Parsl ask here, and its interchanges leave out nodes that rest."""
        config.retries, config.retry_handler = self.most, self.cost
        self.lending = lending
        if config.memoizer is not None:
            config.memoizer.before = self.before
            config.memoizer.after = lending.ended if lending else None
        self.resting.govern(config.executors)

    def close(self) -> None:
        """The run ends: nothing more is tried again."""
        self._over = True
        self._alarm.close()

    def before(self, task: Mapping[str, Any]) -> Future | None:
        """What a task has to wait for before it is launched; called by the memoizer for each."""
        if self._tasks.get(task["kwargs"]["key"]) is not task:
            self._tasks[task["kwargs"]["key"]] = task
            task["app_fu"].add_done_callback(_slim)
        if self._waits and (wait := self._waits.pop(task["id"], None)):
            return wait
        return self.lending.before(task) if self.lending else None

    def cost(self, error: Exception, task: Mapping[str, Any]) -> float:
        """What a failure weighs; more than `most` ends the task. An exception raised here takes the place of the task's own."""
        if isinstance(error, (Again, Granted)):
            return 0
        kind = faults.kind(error)
        if kind == faults.INPUT and "key" in task["kwargs"] and not self._over:
            return self._make_inputs(error, task)
        if kind == faults.MACHINE and self.most and not self._over:
            return self._elsewhere(error, task)
        return self.most + 1

    def _elsewhere(self, error: Exception, task: Mapping[str, Any]) -> float:
        host = faults.host(error)
        with self._lock:
            said = self._said.setdefault(task["id"], [])
            said.append(_first_line(error) + (f" (on {host})" if host else ""))
        self.resting.blame(task["executor"], host)
        if len(said) > self.most:
            raise GaveUp(_all_of_it(said)) from error
        delay = min(LONGEST_S, FIRST_S * 2 ** (len(said) - 1))
        self.say(f"{_named(task)}: {said[-1]}; tried again in {delay:g} s ({len(said)} of {self.most})")
        if len(said) > 1 and faults.killed(error):  # by the kernel perhaps, for want of memory
            _halve(task)
        self._waits[task["id"]] = self._alarm.after(delay, Again())
        return 1

    def _make_inputs(self, error: faults.LostInput, task: Mapping[str, Any]) -> float:
        self._remade[task["id"]] += 1
        makers = [self._tasks.get(artifact.key) for artifact in error.lost]
        if None in makers or self._remade[task["id"]] > REMADE:
            raise GaveUp(f"{error}; run again to have it made again") from error
        self.say(f"{_named(task)}: {error}; made again")
        self._waits[task["id"]] = _all_done([stages.again(maker) for maker in makers], Again())
        return 0


def _all_done(futures: Sequence[Future], end: Exception) -> Future:
    """Ends with `end` once all are done, with their exception if one has any."""
    last, pending, lock = Future(), len(futures), threading.Lock()

    def one_is(future: Future) -> None:
        nonlocal pending
        with lock:
            pending -= 1
            over = not pending
        if over and last.set_running_or_notify_cancel():
            faulty = [f.exception() for f in futures if f.exception()]
            last.set_exception(faulty[0] if faulty else end)

    for future in futures:
        future.add_done_callback(one_is)
    return last


def _slim(done: Any) -> None:
    """Lets go what Parsl keeps of a finished task and nobody asks for: two kilobytes, more than all the rest of it."""
    done.task_record.update(exec_fu=None, depends=())


def _halve(task: Mapping[str, Any]) -> None:
    """Its next attempt has batches half as large."""
    stages.tell(task, halvings=task["kwargs"]["rest"].arguments["machine"].get("halvings", 0) + 1)


def _all_of_it(said: Sequence[str]) -> str:
    counted = "; ".join(f"{text}{f' ({n} times)' if n > 1 else ''}" for text, n in Counter(said).items())
    return f"failed {len(said)} times, and is not tried again: {counted}"


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).partition("\n")[0]


def _named(task: Mapping[str, Any]) -> str:
    return f"{task['kwargs'].get('stage', 'a task')} {task['kwargs'].get('key', '')[:8]}".strip()
