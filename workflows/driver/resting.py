"""Nodes that let tasks down rest: for a while, longer after a second time, for good after the third.

The driver notes them in a file, and Parsl's interchange, a process of its own, leaves their managers out when it gives tasks
away (a ManagerSelector, Parsl's extension point). Where no other node is there, they work all the same. An executor's nodes
rest from its own tasks alone: a node that cannot start ranks may still generate.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from parsl.executors.high_throughput.manager_selector import ManagerSelector

from apps.platform.launchers import short

ROOT = Path(__file__).resolve().parents[2]
RESTS_S = (20.0, 120.0, float("inf"))  # after the first, the second and the third time


class Resting:
    """The driver's side. `folder` is Parsl's; `say` tells what becomes of a node."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self.folder, self.say = folder, say
        self._lock = threading.Lock()
        self._until: dict[str, dict[str, float]] = {}  # executor -> node -> seconds since 1970
        self._times: dict[tuple[str, str], int] = {}

    def govern(self, executors: Iterable[Any]) -> None:
        """For those that have an interchange: it is started so that it can import this file, and ends when the driver does."""
        for executor in executors:
            if hasattr(executor, "interchange_launch_cmd"):
                executor.manager_selector = Rested(self._file(executor.label), executor.manager_selector)
                executor.interchange_launch_cmd = tied(list(executor.interchange_launch_cmd))

    def blame(self, label: str, host: str) -> None:
        """A task was let down there. What happens while a node rests already counts as the same incident."""
        now = time.time()
        with self._lock:
            until = self._until.setdefault(label, {})
            if not host or until.get(host, 0) > now:
                return
            times = self._times[label, host] = self._times.get((label, host), 0) + 1
            rest = RESTS_S[min(times, len(RESTS_S)) - 1]
            until[host] = now + rest
            self._write(label, until)
        if rest == RESTS_S[-1]:
            self.say(f"{host} let {label} tasks down {times} times: it is given no more, if another node is there")

    def rests(self, label: str, host: str) -> bool:
        """Whether it is left out at this moment."""
        until = dict(self._until.get(label, {}))  # another thread adds to it
        return any(when > time.time() for name, when in until.items() if short(name) == short(host))

    def _write(self, label: str, until: dict[str, float]) -> None:
        file = self._file(label)
        aside = file.with_suffix(".part")
        with suppress(OSError):  # a full disk: the task is tried again all the same
            file.parent.mkdir(parents=True, exist_ok=True)
            aside.write_text(json.dumps(until))
            os.replace(aside, file)

    def _file(self, label: str) -> Path:
        return self.folder / f"{label}.resting.json"


class Rested(ManagerSelector):
    """The interchange's side: who is given tasks, in the order of another selector."""

    def __init__(self, file: Path, order: ManagerSelector) -> None:
        self.file, self.order = file, order
        self._read, self._until = 0, {}

    def sort_managers(self, ready_managers: Any, manager_list: set[bytes]) -> list[bytes]:
        names, now = self.order.sort_managers(ready_managers, manager_list), time.time()
        tired = {host for host, until in self._known().items() if until > now}
        if not tired:
            return names  # without a look at thousands of others
        able = [
            n for n, m in ready_managers.items() if m["active"] and not m["draining"] and m["hostname"] not in tired
        ]
        return [name for name in names if ready_managers[name]["hostname"] not in tired] if able else names

    def _known(self) -> dict[str, float]:
        try:
            changed = os.stat(self.file).st_mtime_ns
            if changed != self._read:
                self._read, self._until = changed, json.loads(self.file.read_text())
        except (OSError, ValueError):  # nothing to tell yet
            return {}
        return self._until


def tied(command: list[str]) -> list[str]:
    """Parsl's command of an interchange, in this environment; the kernel ends it with the driver, however that ends.

    Otherwise an interchange would outlive a driver that is killed, and have every queued task run beside a resumed run.
    Without it its managers end within their heartbeat's threshold.
    """
    if command == ["interchange.py"]:
        command = [sys.executable, str(Path(sys.executable).parent / "interchange.py")]
    if "setpriv" not in command and shutil.which("setpriv"):  # of util-linux, on every Linux
        command = ["setpriv", "--pdeathsig", "TERM", "setsid", *command]  # a terminal's Ctrl-C is for the driver
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return ["env", f"PYTHONPATH={path}", *command]
