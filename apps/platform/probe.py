"""What a node says of itself when it is asked before a job starts: `python -m apps.platform.probe QUESTION`.

QUESTION is JSON, see `Question`. The same process is started on every node, one a node, by the site's launcher. It needs no
MPI, so that a dead neighbour cannot hold it up. It prints a line as it comes to each check, then its answer, on lines that
begin with MARK; which node it is follows from its rank. A check that fails is a fault in the answer and not an end. Whether
faults rule a node out is for `preflight.py` to say, which has all answers.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import shutil
import socket
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from apps.platform import devices, environment
from apps.records import MeritError

MARK = "MERIT-PROBE "  # in front of what is meant for the driver: launchers and libraries print lines of their own
RANK_VARIABLES = ("PALS_RANKID", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID")  # the first that is set
LIBRARIES = {"torch": "torch", "transformers": "transformers", "peft": "peft", "parsl": "parsl", "mpi4py": "mpi4py"}
LIBRARIES |= {"deepspeed": "deepspeed", "vllm": "vllm", "intel_extension_for_pytorch": "intel-extension-for-pytorch"}
SIDE = 512  # of the square matrices whose product is checked
FAST_SIDE = {"cpu": 768}  # of those that are timed; elsewhere 4096
TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2}  # ‖C − AB‖ / ‖AB‖; AB in float64
TMPDIR_LENGTH = 60  # characters; a socket's path may have 107, and libraries append up to 45
GIB = 2**30


@dataclass(frozen=True, slots=True)
class Question:
    """What every node is asked."""

    device: str = "auto"  # as for devices.pick
    imports: tuple[str, ...] = ("torch", "transformers", "peft", "parsl", "mpi4py")  # modules that have to import
    folders: Mapping[str, str] = field(default_factory=dict)  # what for: a folder to be written to, as {"store": …}
    token: str = ""  # a file that the driver has just written in a shared folder, to be seen from here; "" = none
    computes: bool = True  # False: disks alone, without a library that is large


@dataclass(frozen=True, slots=True)
class Device:
    """A device as it was found."""

    name: str
    memory_gib: float = 0.0
    gflops: float = 0.0  # of a product in bfloat16, on a CPU in float32; the best of three
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a node says."""

    host: str  # its own name, which may be longer or shorter than the launcher's
    started: float  # epoch seconds by its clock, of the process's start
    told: float  # and of its last word
    faults: tuple[str, ...] = ()  # what is wrong whatever the other nodes say
    free_gib: Mapping[str, float] = field(default_factory=dict)  # by what the folder is for
    versions: Mapping[str, str] = field(default_factory=dict)  # by module; of those that could be imported
    kind: str = ""  # of its devices, in torch's words; "" = torch did not say
    devices: tuple[Device, ...] = ()
    hierarchy: str = ""  # ZE_FLAT_DEVICE_HIERARCHY of an XPU node


def main(question: Question) -> None:
    facts: dict[str, Any] = {"host": socket.gethostname(), "started": time.time()}
    faults: list[str] = []
    checks: dict[str, Callable[[Question], dict[str, Any]]] = {"disk": disk, "imports": imported}
    checks |= {"devices": computed} if question.computes else {}
    for name, check in checks.items():
        say({"at": name})
        try:
            found = check(question)
            faults += found.pop("faults")
            facts |= found
        except Exception as error:  # whatever a broken node raises is what was to be found out
            kind = "" if isinstance(error, MeritError) else f"{type(error).__name__}: "
            faults.append(f"{name}: {kind}{error}")
    say({"answer": asdict(Answer(**facts, faults=tuple(faults), told=time.time()))})


def say(what: Mapping[str, Any]) -> None:
    """One short write, so that lines of several nodes do not run into one another."""
    sys.stdout.write(f"{MARK}{json.dumps({'rank': rank(), **what}, default=float)}\n")
    sys.stdout.flush()


def rank() -> int:
    """Which of the processes that were started together; 0 where no launcher tells."""
    return int(next((os.environ[name] for name in RANK_VARIABLES if name in os.environ), 0))


def disk(question: Question) -> dict[str, Any]:
    """GiB free in each folder, which is written to; whether the driver's token is seen."""
    faults, free = [], {}
    for purpose, folder in {"TMPDIR": tempfile.gettempdir(), **question.folders}.items():
        try:
            free[purpose] = round(_free(Path(folder)) / GIB, 2)
        except OSError as error:
            faults.append(f"{purpose}: {folder} cannot be written to ({error.strerror})")
    if question.token and not Path(question.token).is_file():
        faults.append(f"{question.token}, which the driver has written, is not seen from here: no shared file system")
    if len(tempfile.gettempdir()) > TMPDIR_LENGTH:
        faults.append(f"TMPDIR={tempfile.gettempdir()} is too long for the paths of sockets; use TMPDIR=/tmp")
    return {"free_gib": free, "faults": faults}


def _free(folder: Path) -> int:
    """Bytes free, after a file was written there and removed."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f".probe-{uuid.uuid4().hex}"
    try:
        file.write_bytes(b"written" * 1000)
    finally:
        file.unlink(missing_ok=True)
    return shutil.disk_usage(folder).free


def imported(question: Question) -> dict[str, Any]:
    """The versions of the libraries, each imported; MPI's library is loaded and not initialised."""
    faults, versions = [], {"python": platform.python_version()}
    # as training ranks do, MPI first: oneCCL would call it otherwise
    for module in sorted(question.imports, key=lambda name: name != "mpi4py"):
        try:
            _import(module)
            versions[module] = environment.version(LIBRARIES.get(module, module)) or "?"
        except Exception as error:  # a library that is half there raises anything
            faults.append(
                f"import {module}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            )
    return {"versions": versions, "faults": faults}


def _import(module: str) -> None:
    if module == "mpi4py":
        import mpi4py

        mpi4py.rc.initialize = mpi4py.rc.finalize = False
        module = "mpi4py.MPI"
    importlib.import_module(module)


def computed(question: Question) -> dict[str, Any]:
    """Every device that is seen: its memory (GiB) and its rate (GFLOP/s), products checked on the way."""
    kind = devices.pick(question.device).partition(":")[0]
    names = [f"{kind}:{index}" for index in range(devices.count(kind))] if kind in ("cuda", "xpu") else [kind]
    found = tuple(device(name) for name in names)
    faults = [f"{one.name}: {one.fault}" for one in found if one.fault]
    hierarchy = os.environ.get("ZE_FLAT_DEVICE_HIERARCHY", "not set") if kind == "xpu" else ""
    return {"kind": kind, "devices": found, "hierarchy": hierarchy, "faults": faults}


def device(name: str) -> Device:
    try:
        dtypes = ["float32"] if name == "cpu" else ["float32", "bfloat16"]
        for dtype in dtypes:
            check_product(*product(name, dtype), dtype)
        return Device(name, memory_gib(name), rate(name, dtypes[-1]))
    except Exception as error:  # out of memory, a hang that the driver noticed, a wrong result
        told = str(error) if isinstance(error, MeritError) else f"{type(error).__name__}: {error}"
        return Device(name, fault=told)


def product(device: str, dtype: str, side: int = SIDE):
    """The product of two fixed matrices as the device works it out, and as the CPU does in float64: both float64 there."""
    import torch

    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(side, side, generator=generator).to(getattr(torch, dtype)) for _ in range(2))
    return (a.to(device) @ b.to(device)).cpu().double(), a.double() @ b.double()


def check_product(found, expected, dtype: str) -> None:
    """MeritError where a product is further from the true one than rounding takes it."""
    apart = float((found - expected).norm() / expected.norm())
    if not apart <= TOLERANCE[dtype]:  # so that NaN is a fault too
        raise MeritError(f"a product in {dtype} is wrong: off by {apart:.2g} of its norm, {TOLERANCE[dtype]:g} allowed")


def rate(device: str, dtype: str) -> float:
    """GFLOP/s of a product, the best of three; the first of all is not counted, in which kernels are made."""
    import torch

    side = FAST_SIDE.get(device, 4096)
    a = torch.ones(side, side, dtype=getattr(torch, dtype), device=device)
    seconds = []
    for _ in range(4):
        started = time.perf_counter()
        (a @ a)[0, 0].item()  # waits for the device
        seconds.append(time.perf_counter() - started)
    return round(2 * side**3 / min(seconds[1:]) / 1e9, 1)


def memory_gib(device: str) -> float:
    import torch

    kind = device.partition(":")[0]
    if kind not in ("cuda", "xpu"):
        return round((environment.memory_gb() or 0) * 1e9 / GIB, 1)
    return round(getattr(torch, kind).get_device_properties(device).total_memory / GIB, 1)


if __name__ == "__main__":
    main(Question(**json.loads(sys.argv[1])))
