"""The interchange's side of lending: nodes that are lent to training are given no task of inference (a ManagerSelector, Parsl's
extension point). Its driver's side is lending.py, and a file goes between.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from parsl.executors.high_throughput.manager_selector import ManagerSelector

from apps.platform.launchers import short


def write(file: Path, hosts: Iterable[str]) -> None:
    """From the next look on, these hosts are lent."""
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_suffix(".part")
    aside.write_text(json.dumps(list(hosts)), encoding="utf-8")
    os.replace(aside, file)


class NotLent(ManagerSelector):
    """Managers of hosts that are not lent, in the order of another selector."""

    def __init__(self, file: Path, order: ManagerSelector) -> None:
        self.file, self.order = file, order
        self._seen: tuple[int, int] = (0, 0)
        self._hosts: set[str] = set()

    def sort_managers(self, ready_managers: Any, manager_list: set[bytes]) -> list[bytes]:
        if not (lent := self._lent()):
            return self.order.sort_managers(ready_managers, manager_list)
        there = {name: m for name, m in ready_managers.items() if short(m["hostname"]) not in lent}
        return self.order.sort_managers(there, {name for name in manager_list if name in there}) if there else []

    def _lent(self) -> set[str]:
        try:
            state = os.stat(self.file)
            if (state.st_ino, state.st_mtime_ns) != self._seen:
                self._hosts = {short(host) for host in json.loads(self.file.read_text(encoding="utf-8"))}
                self._seen = (state.st_ino, state.st_mtime_ns)
        except (OSError, ValueError):  # nothing was lent yet, or what was known last holds: this ends no interchange
            pass
        return self._hosts
