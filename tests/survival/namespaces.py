"""Hosts on one machine: network namespaces at a bridge, each with a name and an address of its own. Wants root and `ip`.

One process of the machine has them at a time; another one waits.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

BRIDGE, ADDRESS = "merit0", "10.87.0.1"  # of this machine, as the hosts see it


def allowed() -> bool:
    """Whether namespaces and bridges can be made here. Tried under a name of this process, so that nobody is waited for."""
    if not shutil.which("ip") or os.geteuid() != 0:
        return False
    name = f"merit{os.getpid()}"
    try:
        _ip(f"netns add {name}", f"netns del {name}", f"link add {name} type bridge", f"link del {name}")
        return True
    except subprocess.CalledProcessError:
        return False


@contextmanager
def some(count: int) -> Iterator[list[str]]:
    """So many hosts, by name. Whatever still runs on them at the end is killed."""
    names = [f"merit-node{number}" for number in range(1, count + 1)]
    with open(Path(tempfile.gettempdir()) / "merit-namespaces.lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with _made(names):
            yield names


@contextmanager
def _made(names: list[str]) -> Iterator[None]:
    _remove(names)
    try:
        _ip(f"link add {BRIDGE} type bridge", f"addr add {ADDRESS}/24 dev {BRIDGE}", f"link set {BRIDGE} up")
        for number, name in enumerate(names, 1):
            _ip(
                f"netns add {name}",
                f"link add merit{number} type veth peer name eth0 netns {name}",
                f"link set merit{number} master {BRIDGE} up",
                f"-n {name} addr add 10.87.0.{number + 1}/24 dev eth0",
                f"-n {name} link set eth0 up",
                f"-n {name} link set lo up",
            )
        yield
    finally:
        _remove(names)


def cut(name: str) -> None:
    """Nothing reaches this host any more, nor leaves it."""
    _ip(f"link set merit{name.removeprefix('merit-node')} down")


def mended(name: str) -> None:
    _ip(f"link set merit{name.removeprefix('merit-node')} up")


def processes(name: str) -> list[int]:
    """Those on this host."""
    said = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=False).stdout
    return [int(word) for word in said.split()]


def _remove(names: list[str]) -> None:
    for number, name in enumerate(names, 1):
        for pid in processes(name):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        # the link by itself: a namespace stays for as long as a process of it is not quite gone
        subprocess.run(["ip", "link", "del", f"merit{number}"], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    subprocess.run(["ip", "link", "del", BRIDGE], capture_output=True, check=False)


def _ip(*commands: str) -> None:
    for command in commands:
        subprocess.run(["ip", *command.split()], capture_output=True, text=True, check=True)
