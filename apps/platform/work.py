"""What a task cost: when it began and ended, where it ran, and how long it kept a processor busy.

It is measured in the process that does the work and told in the artifact's manifest, so it is in no key. A task that has its
process to itself is charged all that this process and the children that it waited for used. One that shares the driver with
others is charged its own thread alone, without threads that a library starts for it.
"""

from __future__ import annotations

import importlib
import os
import resource
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Work:
    """One task's; times are seconds since 1970."""

    began: float
    ended: float
    cpu_s: float  # of user and system
    host: str
    worker: str  # a process, and the thread where several tasks run in one: at one time it does one task
    first: bool  # whether this process had not done a task of this module before: it imported and loaded what it needs
    session: str = ""  # of the driver that asked for it; "" = not told

    @property
    def seconds(self) -> float:
        return self.ended - self.began


_known: set[tuple[int, str]] = set()  # (process, module): a process that is forked has done nothing yet


def measured(module: str, function: str, *call: Any) -> tuple[Any, dict[str, Any]]:
    """What `module.function(*call)` returns, and its Work as plain JSON. Importing the module is part of the work."""
    alone = threading.current_thread() is threading.main_thread()
    began, used, first = time.time(), _used(alone), (os.getpid(), module) not in _known
    result = getattr(importlib.import_module(module), function)(*call)
    _known.add((os.getpid(), module))
    worker = str(os.getpid()) if alone else f"{os.getpid()}/{threading.current_thread().name}"
    return result, asdict(Work(began, time.time(), round(_used(alone) - used, 4), socket.gethostname(), worker, first))


def of(manifest: Mapping[str, Any]) -> Work | None:
    """The work that a manifest tells of; None in one that was written before any was told."""
    told = manifest["record"].get("work")
    return Work(**told) if told else None


def _used(alone: bool) -> float:
    """Seconds of processor so far, of this process and its ended children or of this thread."""
    if not alone:
        return time.thread_time()
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
