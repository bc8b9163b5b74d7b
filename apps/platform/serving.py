"""The other side of processes.py: a warm worker process that answers calls until its parent is gone.

Entry: `python -m apps.platform.serving CALLS LIFELINE THREADS`, two descriptors and a number.
"""

from __future__ import annotations

import importlib
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any


class RemoteTraceback(Exception):
    """The cause of an exception that was raised in a worker: where it was raised there, as text."""


def serve(calls: int, lifeline: int, threads: int) -> None:
    """The child's side: answers calls until the parent is gone. Takes the descriptors of the two pipes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, lambda number, frame: None)  # not ignored, or what it starts would ignore it too
    connection = Connection(calls)
    if os.fork() == 0:
        connection.close()  # or the parent would not see that the worker died
        _watch(lifeline)
    os.close(lifeline)
    while True:
        connection.send_bytes(_answer(connection.recv_bytes(), threads))


def _watch(lifeline: int) -> None:
    """Waits until no one holds the other end, then kills the group.

    A process and not a thread, since code that keeps the interpreter's lock (a regular expression gone wild) would
    keep a thread from running. And not Linux's parent-death signal, which comes when the parent's *thread* ends.
    """
    os.read(lifeline, 1)
    if os.getpgrp() == os.getppid():  # the worker leads the group, as it was started by `Worker`
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _answer(request: bytes, threads: int) -> bytes:
    try:
        name, args, kwargs = pickle.loads(request)
        function = _function(name)
        _set_torch_threads(threads)
        return pickle.dumps((True, function(*args, **kwargs)))
    except BaseException as error:  # a SystemExit too is the caller's to see
        return _pickled_fault(error)


def _pickled_fault(error: BaseException) -> bytes:
    """The exception with its traceback as its cause; as a plain RuntimeError where it does not survive pickling."""
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    for candidate in (error, RuntimeError(f"{type(error).__name__}: {error}")):
        try:
            packed = pickle.dumps((False, _Fault(candidate, text)))
            pickle.loads(packed)
            return packed
        except Exception:  # whatever a strange exception's __reduce__ or __init__ raises
            continue
    raise AssertionError("a RuntimeError pickles")


class _Fault:
    """An exception that keeps its cause when it is pickled, which exceptions themselves do not."""

    def __init__(self, error: BaseException, text: str):
        self.error, self.text = error, text

    def __reduce__(self) -> Any:
        return _rebuild, (self.error, self.text)


def _rebuild(error: BaseException, text: str) -> BaseException:
    error.__cause__ = RemoteTraceback(f"\n{text}")
    return error


def _function(name: str) -> Callable[..., Any]:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _set_torch_threads(threads: int) -> None:
    """A task before this one may have changed it. Where torch is not imported yet, OMP_NUM_THREADS sees to it."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(threads)


if __name__ == "__main__":
    from apps.platform import serving  # so that its classes are those of the module and not of __main__

    serving.serve(*map(int, sys.argv[1:]))
