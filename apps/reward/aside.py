"""Runs a function in a helper process that the kernel ends when it has used its share of processor time.

Symbolic work on a model's text cannot be bounded from inside: a thread cannot be killed, an alarm signal works in the
main thread alone, and neither stops a computation within one C call (9^9^9^9). A limit on the *processor* time of
another process stops everything, works from any thread, and does not depend on how busy the machine is, so the same
text gets the same verdict. The helper stays warm and is shared by the threads of a process; a helper that died is
started anew. This is no sandbox: it bounds time and memory, it does not keep anybody out of the file system.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from apps.records import MeritError

CPU_S = 5  # processor seconds for one call, the first import of a library included; usual calls need 0.01
MEMORY_BYTES = 8 << 30  # of address space, not of memory in use
ROOT = Path(__file__).parents[2]
START = threading.Lock()


class Helper:
    """The process, and the lock that lets one call through at a time."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.process: subprocess.Popen | None = None

    def ask(self, job: list[Any]) -> dict[str, Any] | None:
        """The reply to a job; None where the helper died over it."""
        with self.lock:
            if self.process is None or self.process.poll() is not None:
                self.process = start()
            try:
                self.process.stdin.write(json.dumps(job) + "\n")
                self.process.stdin.flush()
                reply = self.process.stdout.readline()
            except BrokenPipeError:
                reply = ""
            if not reply.endswith("\n"):
                self.close()
                return None
            return json.loads(reply)

    def close(self) -> None:
        """Ends the process, if there is one."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


HELPERS: dict[int, Helper] = {}  # by process id, so that a forked process does not talk over its parent's pipe


def call(function: str, *arguments: Any) -> tuple[Any, str]:
    """(result, "") of `function`, named "module:name", or (None, why it has none).

    Arguments and result must be plain JSON. A library that is not installed is a MeritError, not a verdict.
    """
    said = helper().ask([function, *arguments])
    if said is None:
        return None, f"it took more than {CPU_S} s of processor time, or crashed"
    if said.get("missing"):
        raise MeritError(
            f"{function} cannot run: {said['missing']}; install what it needs (merit[tasks] has the extras)"
        )
    return said["result"], said["error"]


def helper() -> Helper:
    """This process's helper."""
    with START:
        if os.getpid() not in HELPERS:
            HELPERS[os.getpid()] = Helper()
            atexit.register(HELPERS[os.getpid()].close)
        return HELPERS[os.getpid()]


def start() -> subprocess.Popen:
    """A helper that has said that it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-m", "apps.reward.aside"],
        cwd=ROOT,  # `-m` looks there first; running the file itself would put math.py before Python's own
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="ascii",  # json.dumps escapes everything else
        start_new_session=True,  # Ctrl-C is for the run; the helper ends with its pipe
    )
    if process.stdout.readline() != "ready\n":
        process.kill()
        raise MeritError(f"the helper process for verifiers did not start: {sys.executable} -m apps.reward.aside")
    return process


def serve() -> None:
    """The helper's loop: a job a line in, a reply a line out."""
    import resource

    with contextlib.suppress(ValueError, OSError):  # macOS has no such limit
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    replies, sys.stdout = sys.stdout, sys.stderr  # what a library prints must not end up among the replies
    print("ready", file=replies, flush=True)
    for line in sys.stdin:
        print(json.dumps(reply(*json.loads(line))), file=replies, flush=True)


def reply(function: str, *arguments: Any) -> dict[str, Any]:
    """What came of one call, made under the limit."""
    import resource

    usage = resource.getrusage(resource.RUSAGE_SELF)
    spent = int(usage.ru_utime + usage.ru_stime) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (spent + CPU_S, resource.getrlimit(resource.RLIMIT_CPU)[1]))
    try:
        module, name = function.split(":")
        return {"result": getattr(importlib.import_module(module), name)(*arguments), "error": ""}
    except ImportError as error:
        return {"missing": str(error)}
    except Exception as error:  # a fault over a model's text is a reply
        return {"result": None, "error": f"{type(error).__name__}: {error}"[:200]}


if __name__ == "__main__":
    serve()
