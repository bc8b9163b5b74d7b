"""Which device to compute on, and how many cores there are."""

from __future__ import annotations

import glob
import importlib
import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from apps.records import MeritError, Options

Settings = TypeVar("Settings", bound=Options)
ORDER = ("cuda", "xpu", "mps", "cpu")  # the first that is there is taken
BACKENDS = {
    "cuda": ("nccl",),
    "xpu": ("xccl", "ccl"),
    "cpu": ("gloo",),
}  # of torch.distributed; the first that is there


def pick(wanted: str = "auto") -> str:
    """The device to use, in torch's words. Imports torch (2 s): ask in the worker that computes, not in the driver.

    `wanted` is "auto" or one of ORDER, with an index if need be ("cuda:1").
    """
    there = available()
    if wanted == "auto":
        return there[0]
    kind, _, index = wanted.partition(":")
    if kind not in there:
        raise MeritError(f"device {wanted!r} is not here; there is: {', '.join(there)} (or say 'auto')")
    if index and index not in (known := [str(i) for i in range(count(kind))]):
        raise MeritError(f"device {wanted!r} is not here; of {kind} there is: {', '.join(known)}")
    return wanted


def available() -> list[str]:
    """The kinds of device that torch can use here, best first."""
    import torch

    has = {
        "cuda": torch.cuda.is_available(),
        "xpu": hasattr(torch, "xpu") and torch.xpu.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    return [kind for kind in ORDER if has[kind]]


def of_rank(device: str, local_rank: int) -> str:
    """The device of one of a node's ranks: "cuda" or "xpu" with its index; "cpu" and a device with an index stay as they are.

    Where a rank sees one device only, the platform has masked the others, and it is the rank's own.
    """
    if device not in ("cuda", "xpu"):
        return device
    there = count(device)
    if 1 < there <= local_rank:
        raise MeritError(
            f"rank {local_rank} of this node has no device: of {device} there are {there}; use fewer ranks a node"
        )
    return f"{device}:{local_rank if there > 1 else 0}"


def backend(device: str) -> str:
    """What torch.distributed is to use among ranks on such devices: xccl, ccl, nccl or gloo, as far as it is here."""
    from torch import distributed

    wanted = BACKENDS.get(device.partition(":")[0], ())
    for name in wanted:
        if name == "ccl":  # in torch up to 2.7 it came with a module of its own, which registers it
            with suppress(ImportError):
                importlib.import_module("oneccl_bindings_for_pytorch")
        if distributed.is_backend_available(name):
            return name
    tried = f"none of {', '.join(wanted)} is in this torch" if wanted else "torch has no backend for it"
    raise MeritError(f"several ranks cannot compute on {device!r}: {tried}; use training.parallel=single")


def dtype(wanted: str, device: str) -> str:
    """The dtype to compute with: `wanted`, or for "auto" bfloat16 where the device multiplies it faster than float32."""
    if wanted != "auto":
        return wanted
    import torch

    kind = device.partition(":")[0]
    if kind == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    can = getattr(torch.cpu, "get_capabilities", dict)() if kind == "cpu" else {}
    return "bfloat16" if kind == "xpu" or can.get("amx_bf16") or can.get("avx512_bf16") else "float32"


def settled(options: Settings, device: str) -> Settings:
    """Options whose `dtype` may be "auto", with what that comes to on this device."""
    wanted = getattr(options, "dtype", "")
    return options.model_copy(update={"dtype": dtype(wanted, device)}) if wanted == "auto" else options


def accelerator_in_sight() -> bool:
    """A guess without torch, for planning: whether the machine shows an accelerator."""
    if platform.system() == "Darwin":
        return platform.machine() == "arm64"
    return bool(glob.glob("/dev/nvidia[0-9]*") or (glob.glob("/dev/dri/renderD*") and _intel()))


def cores() -> int:
    """Cores that this process may use: its affinity, and its control group's quota where it has one."""
    mask = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(mask, _quota(Path("/sys/fs/cgroup/cpu.max")) or mask))


def _quota(file: Path) -> int | None:
    """Whole cores of a `cpu.max` ("200000 100000" = 2), rounded up; None = unlimited or no such file."""
    try:
        quota, period = file.read_text(encoding="ascii").split()
        return -(-int(quota) // int(period))
    except (OSError, ValueError):
        return None


def count(kind: str) -> int:
    """How many devices of a kind torch sees here."""
    import torch

    return getattr(torch, kind).device_count() if kind in ("cuda", "xpu", "mps") else 1


def _intel() -> bool:
    files = glob.glob("/sys/class/drm/renderD*/device/vendor")
    return "0x8086" in (Path(file).read_text(encoding="ascii").strip() for file in files)
