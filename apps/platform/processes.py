"""Warm worker processes: a function runs in a process of its own, which is kept for the next call.

Training and sandboxes run so: a thread cannot be killed and shares torch's random state and number of threads. What a
module keeps (imports, a base model) lives as long as its process. A pool has as many processes as calls at one time.
A process that is to end is told so first, by SIGTERM, and killed when its time is up; SIGUSR1 asks it to save its work.
What that means is the function's own affair (apps/platform/requests.py); one that has no say in it ends at once.

    metrics = run("training", app.train, folder, options, threads=2)

A process leads a group of its own, so that whatever it started is killed with it: on a timeout, by `close`, and when
this process ends in any way, SIGKILL included. Ctrl-C in a terminal does not reach it.

The protocol is pickles over one socket pair: (function's name, args, kwargs) there, (whether it went well, result or
exception) back. The child's side is serving.py.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import Any

from apps.platform import requests
from apps.platform.serving import RemoteTraceback
from apps.records import MeritError

__all__ = [
    "RemoteTraceback",
    "TimedOut",
    "WorkerDied",
    "ask_to_save",
    "close",
    "passing_on",
    "retire",
    "run",
    "variables",
    "warm",
]

ROOT = Path(__file__).resolve().parents[2]
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
LAST_WORDS = 2000  # bytes of a dead worker's output that its exception quotes


class WorkerDied(MeritError):
    """The process ended in the middle of a call: killed from outside, out of memory, or crashed."""


class TimedOut(MeritError):
    """The call took longer than its `timeout_s`; its process was killed."""


_lock = threading.Lock()
_idle: dict[tuple[Any, ...], list[Worker]] = {}  # (pool, threads, env) -> processes waiting, the last used at the end
_all: set[Worker] = set()


def run(
    pool: str,
    function: Callable[..., Any],
    *args: Any,
    threads: int = 1,
    env: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
    until: float | None = None,
    grace_s: float = 0,
    **kwargs: Any,
) -> Any:
    """Calls `function(*args, **kwargs)` in a process of `pool` with these threads and environment; blocks, thread-safe.

    The function is sent by name, so it has to be importable; arguments and result have to pickle. At `until` (seconds since
    1970) the process is sent SIGTERM, and has `grace_s` to save and end. Raises what the function raised, WorkerDied, or
    TimedOut.
    """
    request = pickle.dumps((_name(function), args, kwargs))
    setup = (pool, threads, tuple(sorted((env or {}).items())))
    worker = _take(setup)
    try:
        well, value = worker.call(request, timeout_s, until, grace_s)
    except BaseException:  # also KeyboardInterrupt: the process is in an unknown state
        _discard(worker)
        raise
    with _lock:
        if worker in _all:  # not closed meanwhile
            _idle.setdefault(setup, []).append(worker)
    if well:
        return value
    raise value


def close(grace_s: float = 0) -> None:
    """Kills every process. Calls that wait for one raise WorkerDied; a later call starts anew.

    With `grace_s` those at work are sent SIGTERM first, and have so long to save what they have and to end.
    """
    with _lock:
        workers = list(_all)
        _idle.clear()
        _all.clear()
    if grace_s and (busy := [worker for worker in workers if worker.send(signal.SIGTERM)]):
        end = time.monotonic() + grace_s
        while any(worker.busy for worker in busy) and time.monotonic() < end:
            time.sleep(0.02)
    for worker in workers:
        worker.kill()


def ask_to_save() -> None:
    """Sends SIGUSR1 to every process at work: what can be gone on with later is saved, and the work goes on."""
    with _lock:
        workers = list(_all)
    for worker in workers:
        worker.send(signal.SIGUSR1)


def warm(pool: str) -> bool:
    """Whether a process of a pool waits, so that a call finds loaded what an earlier one has loaded."""
    with _lock:
        return any(worker.idle_and_well() for setup, idle in _idle.items() if setup[0] == pool for worker in idle)


def retire(pool: str) -> None:
    """Ends the idle processes of a pool: one whose memory ran out does not get all of it back."""
    with _lock:
        idle = [worker for setup in list(_idle) if setup[0] == pool for worker in _idle.pop(setup)]
    for worker in idle:
        _discard(worker)


@contextmanager
def passing_on(grace_s: float) -> Iterator[None]:
    """While it lasts, SIGUSR1 to this process asks those at work for it to save; at SIGTERM they may, and all end.

    For a worker that is itself started by others and has nothing to save. Without effect outside of the main thread.
    """

    def end() -> None:
        close(grace_s)
        os._exit(128 + signal.SIGTERM)

    def hear(number: int, frame: Any) -> None:
        asked = ask_to_save if number == signal.SIGUSR1 else end
        threading.Thread(target=asked, daemon=True).start()  # it waits for a lock, a handler must not

    with requests.handled(hear):
        yield


class Worker:
    """The parent's side of one process."""

    def __init__(self, threads: int, env: Mapping[str, str]):
        self._connection, calls = Pipe()
        lifeline, held = os.pipe()  # nothing is ever written: the child waits for its end
        self._held: int | None = held
        self._output = tempfile.TemporaryFile()  # no terminal: it would disturb the progress display
        self._killing = threading.Lock()
        descriptors = [calls.fileno(), lifeline]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "apps.platform.serving", *map(str, descriptors), str(threads)],
                env=variables(threads, env),
                pass_fds=descriptors,
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        finally:
            calls.close()
            os.close(lifeline)
        self.pid, self.busy = self._process.pid, False

    def send(self, number: int) -> bool:
        """Sends a signal if it is at work; says whether it is."""
        with self._killing:
            if self.busy and self._held is not None:
                os.kill(self.pid, number)
                return True
        return False

    def call(
        self, request: bytes, timeout_s: float | None, until: float | None = None, grace_s: float = 0
    ) -> tuple[bool, Any]:
        self.busy = True
        try:
            self._connection.send_bytes(request)
            left = None if until is None else max(0.0, until - time.time())
            if left is not None and (timeout_s is None or left < timeout_s) and not self._connection.poll(left):
                self.send(signal.SIGTERM)
                timeout_s = grace_s
            if not self._connection.poll(timeout_s):
                raise TimedOut(f"a worker process took longer than {timeout_s:g} s and was killed")
            return pickle.loads(self._connection.recv_bytes())
        except (EOFError, ConnectionError) as error:
            raise WorkerDied(self._obituary()) from error
        finally:
            self.busy = False

    def idle_and_well(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """Kills the process with all that it started, and waits until it is gone."""
        with self._killing:
            if self._held is None:
                return
            with suppress(ProcessLookupError, PermissionError):  # it is gone already
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
            os.close(self._held)
            self._held = None

    def _obituary(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1)  # its own status, before that of being killed
        self.kill()
        code = self._process.returncode
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        hint = "; perhaps the machine ran out of memory" if code == -signal.SIGKILL else ""
        self._output.seek(max(0, self._output.seek(0, os.SEEK_END) - LAST_WORDS))
        words = self._output.read().decode(errors="replace").strip()
        return f"a worker process {how}{hint}" + (f". The end of its output:\n{words}" if words else "")


def _take(setup: tuple[Any, ...]) -> Worker:
    """A warm process if one waits and lives, else a new one."""
    _, threads, env = setup
    while True:
        with _lock:
            worker = _idle[setup].pop() if _idle.get(setup) else None
        if worker is None:
            break
        if worker.idle_and_well():
            return worker
        _discard(worker)
    worker = Worker(threads, dict(env))
    with _lock:
        _all.add(worker)
    return worker


def _discard(worker: Worker) -> None:
    with _lock:
        _all.discard(worker)
    worker.kill()


def variables(threads: int, env: Mapping[str, str]) -> dict[str, str]:
    """A child's environment. Set before it imports anything: the libraries look at the number of threads once."""
    path = os.pathsep.join(dict.fromkeys([str(ROOT), *(p for p in sys.path if p)]))
    counts = dict.fromkeys(THREAD_VARIABLES, str(threads))
    return {**os.environ, **counts, "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": path, **env}


def _name(function: Callable[..., Any]) -> str:
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
    if module in (None, "__main__") or "." in name or "<" in name:
        raise TypeError(f"{function!r} cannot be sent to another process: it has to be a function of a module")
    return f"{module}:{name}"
