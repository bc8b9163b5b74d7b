"""Tasks of inference that take far longer than others of their kind are begun once more elsewhere, and whoever ends first counts.

So a node that has died or hangs holds nobody up until its failure is noticed otherwise: a round waits for its last shard. Both
attempts write the same artifact, which is no fault (apps/artifacts.py). When a task has begun is told by its worker (apps/platform/bell.py).
A task is overdue SIGMAS standard deviations of the logarithm beyond the median of those of its kind that have ended; with
the MISSED-th on one host all that this host has are, and it rests. One that has its model to load first is given LOADING_S for
that, and tells nothing of the others. One that was never heard to begin has begun when one behind it in the queue has: its word was
lost, or its worker.
"""

from __future__ import annotations

import math
import secrets
import socket
import statistics
import threading
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any

from apps.platform import bell

LABEL = "inference"
SIGMAS = 3.0
LEAST_SIGMA = 0.1  # of the logarithm; tasks alike to the second would be overdue at once
ENOUGH = 12  # tasks of a kind that have ended, before any is overdue
LEAST_S = 10.0  # beyond the median
LOADING_S = 600.0  # beyond that, of one whose process has nothing loaded yet
MISSED = 3  # overdue tasks on one host by which it is taken for gone
MANY = 8  # tasks of which more than half are overdue: that is no host's fault
EVERY_S = 1.0


class Shared(Future):
    """What Parsl waits for, while an executor may be at the task twice."""

    def __init__(self) -> None:
        super().__init__()
        self.theirs: list[Future] = []  # of the executor, that have not ended

    def cancel(self) -> bool:
        for future in list(self.theirs):
            future.cancel()
        return super().cancel()


@dataclass(eq=False, slots=True)
class Attempt:
    """A task that was handed to the executor."""

    key: str
    kind: int
    again: Callable[[], Future]  # hands it over once more
    order: float  # in the executor's queue
    handed: float = field(default_factory=time.monotonic)
    ours: Shared = field(default_factory=Shared)
    began: float = 0.0  # 0: not that we know
    host: str = ""
    fresh: bool = False  # its process had nothing loaded yet
    overdue: bool = False
    over: bool = False


class Limits:
    """How long tasks of a kind may take, by those that have ended."""

    def __init__(self) -> None:
        self._logs: dict[int, list[float]] = {}

    def note(self, kind: int, seconds: float) -> None:
        logs = self._logs.setdefault(kind, [])
        logs.append(math.log(max(seconds, 1e-3)))
        del logs[:-256]

    def of(self, kind: int) -> float:
        """Seconds after which one is overdue; infinite where too few are known."""
        logs = self._logs.get(kind, ())
        if len(logs) < ENOUGH:
            return math.inf
        median, mean = statistics.median(logs), math.fsum(logs) / len(logs)
        spread = math.sqrt(math.fsum((log - mean) ** 2 for log in logs) / (len(logs) - 1))  # statistics.stdev is slow
        sigma = max(LEAST_SIGMA, spread)
        return max(math.exp(median + SIGMAS * sigma), math.exp(median) + LEAST_S)


class Overdue:
    """Watches the executor of inference. `blame(label, host)` is told of hosts that miss several tasks, `say` what is begun anew."""

    def __init__(self, blame: Callable[[str, str], None], say: Callable[[str], None]) -> None:
        self.blame, self.say, self.limits = blame, say, Limits()
        self._lock, self._over, self._token = threading.Lock(), threading.Event(), secrets.token_hex(8)
        self._numbers = count()
        self._handing = threading.Lock()  # an executor numbers tasks without one
        self._at: dict[str, Attempt] = {}  # by key
        self._front: list[
            tuple[float, float]
        ] = []  # (order, when it began) of those of which none behind had begun before

    def govern(self, executors: Iterable[Any]) -> None:
        """Takes over what is handed to that executor, if its workers are elsewhere; before it is started."""
        for executor in executors:
            if executor.label == LABEL and hasattr(executor, "launch_cmd"):
                line = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)  # all workers may begin at once
                line.bind(("", 0))
                line.settimeout(EVERY_S)
                told = f"{','.join(sorted(executor.all_addresses))}/{line.getsockname()[1]}/{self._token}"
                executor.launch_cmd = f"env {bell.BELL}={told} {executor.launch_cmd}"
                executor.submit = self._taking(executor.submit)
                for work in (partial(self._listen, line), self._watch):
                    threading.Thread(target=work, name="overdue", daemon=True).start()

    def close(self) -> None:
        self._over.set()

    def _taking(self, submit: Callable[..., Future]) -> Callable[..., Future]:
        """The executor's `submit`, so that a task can be handed over once more without Parsl's doing."""

        def taken(function: Callable, wishes: Mapping[str, Any], *given: Any, **call: Any) -> Future:
            again = partial(submit, function, wishes, *given, **call)
            with self._lock:
                order = wishes.get("priority", next(self._numbers))
                self._at[call["key"]] = attempt = Attempt(call["key"], _kind(call), again, order)
            first = self._hand_over(attempt)
            attempt.ours.parsl_executor_task_id = first.parsl_executor_task_id  # type: ignore[attr-defined]
            return attempt.ours

        return taken

    def _hand_over(self, attempt: Attempt) -> Future:
        with self._handing:
            theirs = attempt.again()
        attempt.ours.theirs.append(theirs)
        theirs.add_done_callback(partial(self._ended, attempt))
        return theirs

    def _ended(self, attempt: Attempt, done: Future) -> None:
        """The first result counts; a failure does only where nobody else is at it."""
        failed = not done.cancelled() and done.exception() is not None
        with self._lock:
            attempt.ours.theirs.remove(done)
            if attempt.over or (failed and attempt.ours.theirs):
                return
            attempt.over = True
            if self._at.get(attempt.key) is attempt:
                del self._at[attempt.key]
            if attempt.began and not (failed or attempt.overdue or attempt.fresh):
                self.limits.note(attempt.kind, time.monotonic() - attempt.began)
        if done.cancelled() or not attempt.ours.set_running_or_notify_cancel():
            return
        if failed:
            attempt.ours.set_exception(done.exception())
        else:
            attempt.ours.set_result(done.result())

    def _listen(self, line: socket.socket) -> None:
        with line:
            while not self._over.is_set():
                try:
                    token, key, host, fresh = line.recv(4096).decode().split(" ")
                except (OSError, ValueError):  # nobody, or somebody else
                    continue
                with self._lock:
                    if token == self._token and (attempt := self._at.get(key)) and not attempt.began:
                        attempt.began, attempt.host, attempt.fresh = time.monotonic(), host, fresh == "1"
                        if not self._front or attempt.order > self._front[-1][0]:
                            self._front.append((attempt.order, attempt.began))

    def _watch(self) -> None:
        while not self._over.wait(EVERY_S):
            with self._lock:
                late, gone = self._late()
                for attempt in late:
                    attempt.overdue = True
            for host in gone:
                self.blame(LABEL, host)
            if late:
                hosts = Counter(attempt.host for attempt in late)
                told = ", ".join(f"{n} on {host or 'a node that has not said so'}" for host, n in hosts.items())
                self.say(f"overdue, and begun once more elsewhere: {told}")
            for attempt in late:
                with suppress(Exception):  # an executor that fails ends all its tasks itself
                    if not attempt.over:
                        self._hand_over(attempt)

    def _late(self) -> tuple[list[Attempt], list[str]]:
        """What is overdue by now, and hosts of which all that they have is taken for it.

        Nothing where most of what is at work is: a file system that hangs lets all wait, and twice as many would not help it.
        """
        now, top = time.monotonic(), self._front[-1][0] if self._front else -math.inf
        begun = [attempt for attempt in self._at.values() if attempt.began or attempt.order < top]
        limits = {kind: self.limits.of(kind) for kind in {a.kind for a in begun}}
        late = {a for a in begun if not a.overdue and now - self._since(a) > limits[a.kind] + LOADING_S * a.fresh}
        if len(late) > max(MANY, len(begun) / 2):
            return [], []
        missed = Counter(a.host for a in begun if a.overdue) + Counter(a.host for a in late)
        gone = [host for host in {a.host for a in late} if host and missed[host] >= MISSED]
        return [a for a in begun if a in late or (a.host in gone and not a.overdue)], gone

    def _since(self, attempt: Attempt) -> float:
        """When it has begun, at the latest."""
        if attempt.began:
            return attempt.began
        return max(attempt.handed, self._front[bisect_right(self._front, (attempt.order, math.inf))][1])


def _kind(call: Mapping[str, Any]) -> int:
    """What tasks have in common that do the same on other shards."""
    options = {name: value for name, value in call["rest"].arguments["options"].items() if name != "take"}
    return hash((call["stage"], repr(options)))
