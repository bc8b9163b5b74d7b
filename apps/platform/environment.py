"""What a run was carried out with, for its `environment.json`: enough to say why two runs differ."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import socket
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from apps.platform import devices

ROOT = Path(__file__).resolve().parents[2]
LIBRARIES = (
    "merit", "parsl", "torch", "transformers", "peft", "tokenizers", "safetensors", "numpy", "h5py", "pydantic",
    "math-verify", "sympy", "datasets", "reasoning-gym", "mpi4py", "deepspeed", "vllm", "intel-extension-for-pytorch",
)  # fmt: skip


def describe() -> dict[str, Any]:
    """Plain JSON. Imports no torch, so the device is known only where torch is imported already; never fails."""
    return {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join(sys.orig_argv),
        "folder": os.getcwd(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "cores": devices.cores(),
        "memory_gb": memory_gb(),
        "git": git(ROOT),
        "libraries": {name: found for name in LIBRARIES if (found := version(name))},
        "devices": devices.available() if "torch" in sys.modules else None,
    }


def git(folder: Path) -> dict[str, Any] | None:
    """The commit of the checkout and whether it was changed since; None without git or outside of a checkout."""
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return None
    changed = _git(folder, "status", "--porcelain")
    return {"commit": commit, "changed": None if changed is None else bool(changed)}


def version(distribution: str) -> str | None:
    """The installed version of a distribution, or None."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def memory_gb() -> float | None:
    """The machine's memory in GB (10⁹ bytes); None where the system does not tell."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (ValueError, OSError):
        return None


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
