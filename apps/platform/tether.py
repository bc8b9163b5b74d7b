"""Ties workers elsewhere to the driver that they work for: when it ends, however it ends, they end at once.

Parsl's manager of a node notices that by heartbeats that stay away, long after, and a worker that is busy never notices: it
would work on beside a resumed run. A connection says so within moments, since the kernel closes it even after SIGKILL. The
driver holds an `Anchor`; on each node the manager is started by

    python3 -m apps.platform.tether ADDRESS,… PORT TOKEN GRACE_S COMMAND …

which ends it, and all that it started, when the anchor is gone. Workers that save their work at SIGTERM have GRACE_S for it.
They end with their manager too, and know this machine's name as MERIT_NODE. A word @host of the command is that name with a few digits behind, other
ones at each start.  A network that is merely cut ends nothing: then heartbeats decide. The standard library only.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import secrets
import selectors
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Any

HOST, NODE = "@host", "MERIT_NODE"
PATIENCE_S = 5.0  # for an answer of the anchor
PAUSE_S = 0.2  # between attempts to reach it
OPEN_FILES = 16_384
STARTS = 5  # at most, of a command that is killed
PR_SET_CHILD_SUBREAPER = 36  # of Linux's prctl


class Anchor:
    """The driver's side: a port at which it says its token, and connections that last as long as it does."""

    def __init__(self) -> None:
        _raise_limit()
        self.token = secrets.token_hex(16)
        self._listener = socket.create_server(("", 0), backlog=512)
        self.port = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        for each in (self._listener, self._woken):
            self._selector.register(each, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._hold, name="anchor", daemon=True)
        self._thread.start()

    def tie(self, command: str, addresses: Iterable[str], grace_s: float) -> str:
        """The shell command that starts `command` so that it ends with this process."""
        where = shlex.quote(",".join(sorted(addresses)))
        return f"python3 -m apps.platform.tether {where} {self.port} {self.token} {grace_s:g} {command}"

    def close(self) -> None:
        """Lets go, which ends all that is tied."""
        self._wake.send(b".")
        self._thread.join()

    def _hold(self) -> None:
        held: set[socket.socket] = set()
        while True:
            ready = [key.fileobj for key, _ in self._selector.select()]
            if self._woken in ready:
                break
            for each in ready:
                if each is self._listener:
                    self._greet(held)
                else:  # nothing is ever sent: it has ended
                    self._selector.unregister(each)
                    held.discard(each)
                    each.close()
        for each in (*held, self._listener, self._wake, self._woken):
            each.close()
        self._selector.close()

    def _greet(self, held: set[socket.socket]) -> None:
        with suppress(OSError):
            connection, _ = self._listener.accept()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            connection.sendall(self.token.encode())
            self._selector.register(connection, selectors.EVENT_READ)
            held.add(connection)


def _raise_limit() -> None:
    """A connection a node: the usual limit of 1,024 open files is less than a large job has."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < enough:
        resource.setrlimit(resource.RLIMIT_NOFILE, (enough, hard))


class Tied:
    """A command and all that it starts. It is started again where it was killed: a launcher of many nodes would end them all."""

    def __init__(self, command: Sequence[str], grace_s: float, guard: IO[bytes]) -> None:
        self.command, self.grace_s, self.guard, self.wanted = command, grace_s, guard, True
        self._group, self._over = 0, threading.Event()

    def run(self) -> int:
        """Returns its exit status when all are gone."""
        status = 1
        for _ in range(STARTS):
            status = self._once() if self.wanted else status
            if status >= 0:
                return status
        return 128 - status

    def _once(self) -> int:
        name = f"{platform.node()}-{secrets.token_hex(3)}"
        command = [name if word == HOST else word for word in self.command]
        child = subprocess.Popen(command, start_new_session=True, env={**os.environ, NODE: platform.node()})
        self._over = threading.Event()
        self._group, status = child.pid, 1
        self.guard.write(f"{child.pid}\n".encode())
        if not self.wanted:  # it was told so just now
            self._clear()
        with suppress(ChildProcessError):  # none is left
            while True:
                pid, said = os.wait()
                if pid == child.pid:
                    status = child.returncode = os.waitstatus_to_exitcode(said)
                    self._clear()  # the workers, whose manager is gone
        self._over.set()
        return status

    def end(self, *given: Any) -> None:
        """It is not wanted any more; also a handler of signals."""
        self.wanted = False
        self._clear()

    def _clear(self) -> None:
        if self._group:
            threading.Thread(target=_end, args=(self._group, self.grace_s, self._over), daemon=True).start()


def main(addresses: Sequence[str], port: int, token: str, grace_s: float, command: Sequence[str]) -> int:
    """Runs the command until it ends or the anchor is gone; its exit status."""
    guard = _guard()
    _adopt()
    tied = Tied(command, grace_s, guard)
    signal.signal(signal.SIGTERM, tied.end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_watch, args=(addresses, port, token, tied.end), daemon=True).start()
    return tied.run()


def _guard() -> IO[bytes]:
    """A process that outlives this one, to kill the group of which it was told last: a launcher may kill this process alone.

    It is adopted by others, so that here all is over when the workers are.
    """
    told, ours = os.pipe()
    if (child := os.fork()) == 0:
        os.setsid()
        if os.fork() == 0:
            os.close(ours)
            groups = os.fdopen(told, "rb").read().split()
            with suppress(ProcessLookupError, PermissionError, IndexError):  # it has ended
                os.killpg(int(groups[-1]), signal.SIGKILL)
        os._exit(0)
    os.close(told)
    os.waitpid(child, 0)
    return os.fdopen(ours, "wb", buffering=0)


def _adopt() -> None:
    """Has workers become children of this process when their manager dies, so that it sees their end; on Linux alone."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _watch(addresses: Sequence[str], port: int, token: str, end: Callable[[], None]) -> None:
    """Returns once the anchor is gone for certain, and all is ended."""
    known = ""  # the address by which it was reached first: this node may be refused at others for other reasons
    while True:
        for address in [known] if known else addresses:
            try:
                with _reached(address, port, token) as connection:
                    known = address
                    connection.recv(1)  # nothing is ever sent: it waits for the end
                    break
            except ConnectionRefusedError:
                if known:
                    return end()
            except OSError:  # cut off, or the connection alone was lost
                continue
        time.sleep(PAUSE_S)


@contextmanager
def _reached(address: str, port: int, token: str) -> Iterator[socket.socket]:
    """A connection to the anchor. ConnectionRefusedError where the machine answers, and no driver or another one does."""
    with socket.create_connection((address, port), timeout=PATIENCE_S) as connection:
        if connection.recv(len(token), socket.MSG_WAITALL).decode(errors="replace") != token:
            raise ConnectionRefusedError
        connection.settimeout(None)
        yield connection


def _end(group: int, grace_s: float, over: threading.Event) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGTERM)
        if not over.wait(grace_s):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1].split(","), int(sys.argv[2]), sys.argv[3], float(sys.argv[4]), sys.argv[5:]))
