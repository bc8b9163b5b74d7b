"""What ended a task: the machine, a lack of memory, an input that is gone, or a fault of the input or the code.

Only the last is the user's to mend, so it alone fails at once. The others are tried again: on another node
(workflows/driver/retries.py), in smaller batches (apps/platform/smaller.py), or once the input has been made anew. A pure function of the
exception; exceptions of libraries that may not be here are known by the names of their classes, or by what they say.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence

from apps.platform import processes, requests
from apps.records import Artifact, MeritError

MACHINE = "the machine"
MEMORY = "a lack of memory"
INPUT = "an input that is gone"
OWN = "the input or the code"

NUMBERS = {getattr(errno, name) for name in (
    "ESTALE", "EIO", "EREMOTEIO", "ENODEV", "ENXIO", "ENOTCONN", "ESHUTDOWN", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN",
    "ENETUNREACH", "ENETRESET", "ENOLINK", "ECOMM", "ETIMEDOUT",
) if hasattr(errno, name)}  # fmt: skip
BY_OTHERS = (processes.WorkerDied, processes.TimedOut, requests.AskedToEnd)  # also of ranks, if one dies
CLASSES = {"WorkerLost", "ManagerLost", "DistNetworkError", "DistStoreError", "DistBackendError"}  # Parsl's, torch's
MACHINE_SAYS = re.compile(
    r"stale file handle|remote i/o error|input/output error|cxi alloc failed|no vnis available|_device_lost|uncorrectable ecc",
    re.IGNORECASE,
)
PEER_SAYS = re.compile(  # torch's classes by name too: ranks hand an exception on as words
    r"connection (was likely )?(closed|reset|refused|timed out|aborted)|broken pipe|socket timeout|no route to host"
    r"|network is unreachable|transport endpoint|timed out waiting \d+ ?ms|\bdist(network|store|backend)error\b",
    re.IGNORECASE,
)
MEMORY_SAYS = re.compile(
    r"out of memory|cannot allocate memory|can't allocate memory|unable to allocate|outofmemoryerror|alloc_failed"
    r"|_out_of_(device_|host_)?(memory|resources)",  # of Level Zero and Unified Runtime: ZE_RESULT_…, UR_RESULT_…, PI_…
    re.IGNORECASE,
)


class LostInput(MeritError):
    """Artifacts that a task needs are gone or damaged; `lost` names them."""

    def __init__(self, message: str, lost: Sequence[Artifact]) -> None:
        super().__init__(message)
        self.lost = tuple(lost)

    def __reduce__(self) -> tuple:
        return type(self), (str(self), self.lost)


def kind(error: BaseException) -> str:
    """MACHINE, MEMORY, INPUT or OWN."""
    if isinstance(error, LostInput):
        return INPUT
    if isinstance(error, BY_OTHERS):
        return MACHINE
    if isinstance(error, MeritError):
        return OWN
    names, said = {parent.__name__ for parent in type(error).__mro__}, str(error)
    if isinstance(error, MemoryError) or "OutOfMemoryError" in names or getattr(error, "errno", None) == errno.ENOMEM:
        return MEMORY
    if isinstance(error, (RuntimeError, OSError)) and MEMORY_SAYS.search(said):
        return MEMORY
    if isinstance(error, (ConnectionError, TimeoutError)) or names & CLASSES:
        return MACHINE
    if isinstance(error, OSError) and error.errno in NUMBERS:
        return MACHINE
    if isinstance(error, (RuntimeError, OSError)) and (MACHINE_SAYS.search(said) or PEER_SAYS.search(said)):
        return MACHINE
    return OWN


def of_another(error: BaseException) -> bool:
    """Whether it only shows that another process or node is gone, so that where it was raised is not where it happened."""
    return isinstance(error, requests.AskedToEnd) or bool(PEER_SAYS.search(str(error)))


def host(error: BaseException) -> str:
    """The node on which it happened; "" where nobody knows."""
    return getattr(error, "hostname", "")


def at(error: BaseException, hostname: str) -> None:
    """Notes where it happened, unless that is known. It stays with the exception when that is pickled."""
    if not host(error):
        error.hostname = hostname  # type: ignore[attr-defined]  # as Parsl's own say it


def killed(error: BaseException) -> bool:
    """Whether its process was killed from outside, as the kernel does where memory runs out."""
    return isinstance(error, processes.WorkerDied) and "SIGKILL" in str(error)
