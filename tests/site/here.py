"""Aurora's site on this machine: the hosts of a job are names, `module` and `mpiexec` are stand-ins, and all else is real."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

# two tiles a node, without cores of their own: this machine has no 104
OPTIONS = ("tiles=2", "cores=0:0", "device=cpu", "interface=lo", "cpu_workers=2", "heartbeat_s=8")


def environment(folder: Path, hosts: Sequence[str] = ("x1", "x2", "x3")) -> dict[str, str]:
    """What a job on these hosts finds in its environment. Each call of mpiexec and of module is noted in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "nodefile").write_text("".join(f"{host}\n" for host in hosts))
    mpiexec = folder / "mpiexec"
    program = Path(__file__).with_name("pals.py")
    mpiexec.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(str(program))} "$@"\n')
    mpiexec.chmod(0o755)
    (folder / "modules.sh").write_text('module() { echo "$*" >> "$MODULES"; }\n')
    return {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "PBS_NODEFILE": str(folder / "nodefile"),
        "PALS_RECORD": str(folder / "mpiexec.jsonl"),
        "PALS_DOWN": str(folder / "down"),
        "MODULES": str(folder / "modules"),
        "BASH_ENV": str(folder / "modules.sh"),
        "MERIT_HOST_SUFFIX": "",
    }


def site_options(**more: object) -> list[str]:
    """The words of the command that choose the site."""
    words = [*OPTIONS, *(f"{name}={value}" for name, value in more.items())]
    return ["--site", "aurora", *(part for word in words for part in ("--site-option", word))]
