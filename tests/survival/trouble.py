"""Stages of the tests, that meet with trouble while a folder holds a file of its name: each file is one such event.

Whoever removes the file has the trouble, so what is tried again goes well once the files are used up.
"""

from __future__ import annotations

import errno
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from apps.platform import mpi
from apps.records import MeritError
from apps.stages import Stage

EFFORT = Stage("effort", "tests.survival.trouble", "cpu")
SHARD = Stage("shard", "tests.survival.trouble", "inference")
RANKS = Stage("ranks", "tests.survival.trouble", "cpu")


def effort(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """Adds up what its inputs hold; `folder` keeps a line for every attempt, "HOST PID"."""
    folder = Path(options["folder"])
    with open(folder / f"attempts-{options['number']}", "a") as file:
        file.write(f"{platform.node()} {os.getpid()}\n")
    for name in options.get("troubles", ()):
        if claimed(folder / name):
            TROUBLES[name.partition("-")[0]](folder / name, options)
    time.sleep(options.get("seconds", 0))
    before = sum(int((place / "sum.txt").read_text()) for places in inputs.values() for place in places)
    (out / "sum.txt").write_text(str(before + options["number"]))
    return {"host": platform.node(), "rows": options.get("engine", {}).get("rows")}


def shard(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """The same, one of many of a kind: what differs is in `take`."""
    return effort(out, inputs, options["take"])


def claimed(file: Path) -> bool:
    try:
        file.unlink()
    except FileNotFoundError:
        return False
    return True


def attempts(folder: Path, number: int) -> list[str]:
    file = folder / f"attempts-{number}"
    return file.read_text().split("\n")[:-1] if file.is_file() else []


def hang(file: Path, options: Mapping[str, Any]) -> None:
    """With a process of its own, that hangs too."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (file.parent / "hung").write_text(f"{os.getpid()} {child.pid}")
    time.sleep(600)


def die(file: Path, options: Mapping[str, Any]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def wait(file: Path, options: Mapping[str, Any]) -> None:
    """Until the test says that it may go on; the worker is its parent, and that one's the manager."""
    worker = os.getppid()
    manager = int(Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[1])
    aside = file.with_name("waiting.part")
    aside.write_text(f"{os.getpid()} {worker} {manager}")
    aside.rename(file.with_name("waiting"))
    while not file.with_name("go").exists():
        time.sleep(0.02)


def refuse(file: Path, options: Mapping[str, Any]) -> None:
    raise MeritError("the rows are of another tokenizer")


def fill(file: Path, options: Mapping[str, Any]) -> None:
    """As if memory did not suffice for so many rows at once."""
    file.touch()
    if options["engine"]["rows"] > 32:
        raise MemoryError("Unable to allocate 7 TiB")


def spoil(file: Path, options: Mapping[str, Any]) -> None:
    """This node cannot work, whoever asks."""
    file.touch()
    if platform.node() == file.with_name("bad_host").read_text():
        raise OSError(errno.ESTALE, "Stale file handle")


def stale(file: Path, options: Mapping[str, Any]) -> None:
    raise OSError(errno.ESTALE, "Stale file handle")


def lose(file: Path, options: Mapping[str, Any]) -> None:
    """An input of its own goes while it works."""
    victim = next((file.parent / "store" / "effort").glob("??/*"))
    (victim / "sum.txt").unlink()
    (victim / "sum.txt").read_text()


def leave(file: Path, options: Mapping[str, Any]) -> None:
    sys.exit(3)


TROUBLES = {f.__name__: f for f in (hang, die, wait, refuse, fill, spoil, stale, lose, leave)}


def ranks(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """Two ranks add up their numbers by MPI's and torch's means."""
    spec = out / "spec"
    spec.write_text(options["folder"])
    mpi.launch(("mpiexec", "-n", "{ranks}"), 2, "tests.survival.trouble", spec)
    return {"sum": int((out / "sum").read_text())}


def rank(spec: Path) -> None:
    """One of them; the second is killed in the middle where the folder says so."""
    world = mpi.join()
    try:
        import torch
        from torch import distributed

        with mpi.connected(world, "cpu"):
            total = torch.tensor([world.rank + 1])
            distributed.all_reduce(total)
            if world.rank == 1 and claimed(Path(spec.read_text()) / "die"):
                os.kill(os.getpid(), signal.SIGKILL)
            distributed.all_reduce(total)
            if world.rank == 0:
                (spec.parent / "sum").write_text(str(int(total)))
    except BaseException as error:
        mpi.leave_fault(spec.parent, world, error)
        raise


if __name__ == "__main__":
    rank(Path(sys.argv[1]))
