"""What a process is asked by signals while it works: SIGUSR1 to save its work, SIGTERM to save it and end.

A batch system sends them before a job's time is up, and so does a driver that is stopped. They are only noted; the work
looks at them where it can be left. Python lets the main thread alone receive signals: elsewhere nothing is ever asked.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from apps.records import MeritError


class AskedToEnd(MeritError):
    """The work has ended because it was told to by SIGTERM: when a run stops, or when another rank has died."""


class Requests:
    """What has been asked so far."""

    def __init__(self) -> None:
        self.save, self.end = False, False

    def note(self, number: int) -> None:
        self.save = True
        self.end |= number == signal.SIGTERM


@contextmanager
def heard() -> Iterator[Requests]:
    """While it lasts these signals are noted, and end nothing."""
    asked = Requests()
    with handled(lambda number, frame: asked.note(number)):
        yield asked


@contextmanager
def handled(handler: Any) -> Iterator[None]:
    """While it lasts `handler(number, frame)` receives SIGUSR1 and SIGTERM; without effect outside of the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in (signal.SIGUSR1, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old if old is not None else signal.SIG_DFL)
