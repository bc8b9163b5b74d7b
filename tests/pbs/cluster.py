"""A PBS server of the tests' own, in a folder: `qsub`, `qstat` and `qdel` to put on PATH, a few nodes, Aurora's queues.

    with Cluster(tmp_path / "pbs") as pbs:
        job = pbs.qsub("-A", "mine", "jobs/debug.pbs", folder=tmp_path)
        pbs.wait(job)

Jobs are real processes on this machine, whatever their nodes are called. Leaving the block ends all of them.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
QUEUES: dict[str, dict[str, Any]] = {  # of Aurora
    "debug": {"nodes": [1, 2], "hours": 1, "running": 1},
    "debug-scaling": {"nodes": [2, 256], "hours": 1, "running": 1},
    "capacity": {"nodes": [1, 16], "hours": 168, "running": 2, "most_jobs": 5},
    "prod": {"route": ["small"]},
    "small": {"nodes": [3, 1024], "hours": 12, "from_route_only": True},  # 256 nodes there; the stand-in has a few
}


class Cluster:
    """`environment` is what a user's shell on its login node has."""

    def __init__(
        self, folder: Path, nodes: Sequence[str] = ("x1", "x2", "x3"), kill_delay: float = 10, profile: str = ""
    ) -> None:
        self.folder, bin = folder, folder / "bin"
        for name in ("bin", "jobs", "aux", "home"):
            (folder / name).mkdir(parents=True)
        for command in ("qsub", "qstat", "qdel"):
            (bin / command).write_text(f'#!/bin/sh\nexec {sys.executable} -S {HERE / command}.py "$@"\n')
            (bin / command).chmod(0o755)
        self.tmp = Path(tempfile.mkdtemp(prefix="pbs-"))  # short, as sockets of its jobs want
        server = {
            "name": "standin", "nodes": list(nodes), "queues": QUEUES, "default_queue": "debug", "kill_delay": kill_delay,
            "required": ["account", "select", "walltime", "filesystems"], "tmp": str(self.tmp),
        }  # fmt: skip
        (folder / "server.json").write_text(json.dumps(server))
        path = f"{bin}:{Path(sys.executable).parent}"
        # /etc/profile sets PATH anew for a login shell, so a user's own file has to come after it
        (folder / "home" / ".bash_profile").write_text(
            f"export PATH={path}:$PATH OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1\n{profile}\n"
        )
        self.environment = {**os.environ, "PATH": f"{path}:{os.environ['PATH']}", "PBS_STAND_IN": str(folder)}

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *exception: object) -> None:
        (self.folder / "closing").touch()
        end = time.monotonic() + 20
        while (left := self.processes()) and time.monotonic() < end:
            time.sleep(0.05)
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert not left, "jobs outlived their server"
        shutil.rmtree(self.folder)
        shutil.rmtree(self.tmp)

    def processes(self) -> list[int]:
        """Whatever works for this server: watchers, and what jobs have started."""
        mark, found = f"PBS_STAND_IN={self.folder}\0".encode(), []
        for file in Path("/proc").glob("[0-9]*/environ"):
            try:
                if mark in file.read_bytes() + b"\0" and int(file.parent.name) != os.getpid():
                    found.append(int(file.parent.name))
            except OSError:  # it has ended
                continue
        return found

    def run(self, *words: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
        """A command as the user gives it on the login node."""
        environment = {**self.environment, **variables}
        return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)

    def qsub(self, *words: str, folder: Path) -> str:
        """Submits; the job's id."""
        done = self.run("qsub", *words, folder=folder)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def job(self, job: str) -> dict[str, Any]:
        """The attributes of a job, in PBS's words."""
        return json.loads((self.folder / "jobs" / f"{job}.json").read_text())

    def jobs(self) -> list[str]:
        return sorted((f.stem for f in (self.folder / "jobs").glob("*.json")), key=lambda job: int(job.split(".")[0]))

    def wait(self, job: str, state: str = "F", patience_s: float = 240) -> dict[str, Any]:
        """Until the job is in that state, or over."""
        end = time.monotonic() + patience_s
        while (found := self.job(job))["job_state"] not in (state, "F"):
            assert time.monotonic() < end, f"{job} is {found['job_state']} still"
            time.sleep(0.05)
        return found
