"""What the stand-in's commands share: the folder that is its server, with a file a job. No daemon: each job has its `mom.py`.

Modelled on OpenPBS 23.06, as far as Merit uses it. Names of attributes, states, messages and exit statuses are PBS's.

    server.json          nodes, queues, what a job has to name, seconds between SIGTERM and SIGKILL, the jobs' TMPDIR
    jobs/ID.json         the attributes of a job, whoever writes holds the lock
    jobs/ID.SC           its script
    jobs/ID.OU           its output until it ends
    aux/ID               its nodes, a line each
    home/.bash_profile   what a user's login shell does
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

UNKNOWN, FINISHED, NO_QUEUE, OVER_LIMIT, NO_ROUTE = 153, 35, 191, 188, 224  # exit statuses: PBS's numbers modulo 256
OVER = ("F", "X")


def root() -> Path:
    return Path(os.environ["PBS_STAND_IN"])


def settings() -> dict[str, Any]:
    return json.loads((root() / "server.json").read_text())


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """One at a time: whoever reads a job to change it, or chooses nodes."""
    with open(root() / "lock", "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def full_id(word: str) -> str:
    return word if "." in word else f"{word}.{settings()['name']}"


def read(job: str) -> dict[str, Any] | None:
    file = root() / "jobs" / f"{job}.json"
    return json.loads(file.read_text()) if file.is_file() else None


def write(job: str, attributes: dict[str, Any]) -> None:
    file = root() / "jobs" / f"{job}.json"
    aside = file.with_suffix(f".{os.getpid()}")
    aside.write_text(json.dumps(attributes))
    aside.replace(file)


def change(job: str, **attributes: Any) -> dict[str, Any]:
    """For a caller that does not hold the lock."""
    with locked():
        found = {**(read(job) or {}), **attributes}
        write(job, found)
    return found


def jobs() -> dict[str, dict[str, Any]]:
    """All jobs ever, in the order of their numbers."""
    names = sorted((f.stem for f in (root() / "jobs").glob("*.json")), key=lambda name: int(name.split(".")[0]))
    return {name: found for name in names if (found := read(name))}


def seconds(walltime: str) -> int:
    """Of "HH:MM:SS", "MM:SS" or seconds."""
    total = 0
    for part in walltime.split(":"):
        total = total * 60 + int(part)
    return total


def clock(count: int) -> str:
    return f"{count // 3600:02}:{count % 3600 // 60:02}:{count % 60:02}"


def nodes(select: str) -> int:
    """How many chunks a select asks for, each of them a whole node here: "2", "1:ncpus=4+2:ncpus=8"."""
    return sum(int(chunk.split(":")[0]) if chunk[0].isdigit() else 1 for chunk in select.split("+"))


def fail(command: str, message: str, status: int = 1) -> NoReturn:
    print(f"{command}: {message}", file=sys.stderr)
    sys.exit(status)
