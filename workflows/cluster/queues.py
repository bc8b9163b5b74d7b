"""A batch system's queues: what may be asked of them. Refuses a job that no queue takes, with the nearest that one does.

Which queues there are is a fact about a machine and lies in its site.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from apps import leaf
from apps.records import MeritError

TIME = re.compile(r"(\d+):([0-5]\d):([0-5]\d)")
TOLD = 3  # how many of the nearest jobs are named


@dataclass(frozen=True, slots=True)
class Queue:
    """What one queue takes; a queue whose longest walltime depends on the nodes has several rows."""

    name: str
    least: int  # nodes of a job
    most: int
    hours: int  # the longest walltime
    running: int  # jobs that one user (or project) may have running at once

    def takes(self, nodes: int, walltime_s: int) -> bool:
        return self.least <= nodes <= self.most and walltime_s <= 3600 * self.hours

    def nearest(self, nodes: int, walltime_s: int) -> tuple[int, int]:
        """Nodes and seconds of the job that comes nearest and is taken."""
        return min(max(nodes, self.least), self.most), min(walltime_s, 3600 * self.hours)


def check(queues: Sequence[Queue], name: str, nodes: int, walltime: str) -> None:
    """MeritError unless the queue of that name takes such a job; it names what comes near, in this queue and in others."""
    names = list(dict.fromkeys(queue.name for queue in queues))
    if name not in names:
        raise MeritError(leaf.unknown("queue", name, names))
    asked = seconds(walltime)
    if any(queue.name == name and queue.takes(nodes, asked) for queue in queues):
        return
    limits = "; ".join(limit(queue) for queue in queues if queue.name == name)
    raise MeritError(
        f"queue={name} nodes={nodes} walltime={walltime}: there is no such job ({limits}); the nearest that there are: "
        + " | ".join(nearest(queues, nodes, asked))
    )


def nearest(queues: Sequence[Queue], nodes: int, walltime_s: int) -> list[str]:
    """Jobs that queues take, the nearest first: by the ratio of nodes times that of walltimes."""

    def distance(queue: Queue) -> float:
        near, time_s = queue.nearest(nodes, walltime_s)
        return abs(math.log(near / max(1, nodes))) + abs(math.log(time_s / max(1, walltime_s)))

    found = [(queue, *queue.nearest(nodes, walltime_s)) for queue in sorted(queues, key=distance)]
    told = [f"queue={queue.name} nodes={near} walltime={clock(time_s)}" for queue, near, time_s in found]
    return list(dict.fromkeys(told))[:TOLD]


def limit(queue: Queue) -> str:
    return f"{queue.least} to {queue.most} nodes for up to {queue.hours} h"


def seconds(walltime: str) -> int:
    """Seconds of HH:MM:SS."""
    found = TIME.fullmatch(walltime)
    if not found or not any(map(int, found.groups())):
        raise MeritError(f"walltime={walltime}: HH:MM:SS is expected, as in 00:30:00")
    hours, minutes, rest = map(int, found.groups())
    return 3600 * hours + 60 * minutes + rest


def clock(seconds: int) -> str:
    """HH:MM:SS of seconds."""
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
