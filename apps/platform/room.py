"""Room on the devices of a node that inference has lent: its idle processes, which keep a model loaded, are ended before ranks start.

They are known by their environment: MERIT_LENDS is what the run's blocks of inference were told, and MERIT_NODE the machine. A
block of training is told the same as MERIT_BORROWS. When their node plays again they are started anew. On Linux alone.
"""

from __future__ import annotations

import os
import platform
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from apps.platform import tether

LENDS, BORROWS = "MERIT_LENDS", "MERIT_BORROWS"
PATIENCE_S = 30.0
WARM = "apps.platform.serving"  # what a warm process runs


def make(environment: Mapping[str, str] = os.environ) -> int:
    """Ends the warm processes of inference on this machine, if this process is one that has borrowed it; says how many.

    When it returns their memory is free, unless one does not end within PATIENCE_S.
    """
    mark = environment.get(BORROWS)
    found = list(_lent(mark)) if mark else []
    for pid in found:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)  # with all that it started: each leads a group
    end = time.monotonic() + PATIENCE_S
    while any(map(_lives, found)) and time.monotonic() < end:
        time.sleep(0.01)
    return len(found)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _lent(mark: str) -> Iterator[int]:
    wanted = {f"{LENDS}={mark}".encode(), f"{tether.NODE}={platform.node()}".encode()}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is somebody else's
            pid, words = int(process.name), (process / "cmdline").read_bytes().split(b"\0")
            told = (process / "environ").read_bytes().split(b"\0") if WARM.encode() in words else []
            if wanted <= set(told) and os.getpgid(pid) == pid:
                yield pid
