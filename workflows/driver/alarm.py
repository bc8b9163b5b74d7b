"""Futures that end after a while: any number of them on one thread, which is there only while there are some."""

from __future__ import annotations

import heapq
import threading
import time
from concurrent.futures import Future
from itertools import count


class Alarm:
    """Each future ends with the exception that it was given; those of a closed one at once."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._due: list[tuple[float, int, Future, Exception]] = []
        self._numbers, self._thread, self._closed = count(), None, False

    def after(self, seconds: float, end: Exception) -> Future:
        future: Future = Future()
        with self._changed:
            when = 0.0 if self._closed else time.monotonic() + seconds
            heapq.heappush(self._due, (when, next(self._numbers), future, end))
            if self._thread is None:
                self._thread = threading.Thread(target=self._ring, name="alarm", daemon=True)
                self._thread.start()
            self._changed.notify()
        return future

    def close(self) -> None:
        """All that wait are let go."""
        with self._changed:
            self._closed = True
            self._due = [(0.0, *rest) for _, *rest in self._due]
            self._changed.notify()

    def _ring(self) -> None:
        while True:
            with self._changed:
                if not self._due:
                    self._thread = None
                    return
                left = self._due[0][0] - time.monotonic()
                if left > 0:
                    self._changed.wait(left)
                    continue
                _, _, future, end = heapq.heappop(self._due)
            if future.set_running_or_notify_cancel():
                future.set_exception(end)
