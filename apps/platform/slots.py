"""A slot: the nodes that a training task may use. Its ranks are spread over them, each with cores of its own.

The driver names them where it knows them (workflows/driver/lending.py): MERIT_HOSTFILE is a file of names of hosts. Else they are
the worker's own: MERIT_SLOTS is a folder of such files, one a worker, called by the worker's number. MERIT_CORES, if set, are the groups of cores of a node, one a rank, as in "1-8:9-16". Words of
its launcher may hold {ranks}, {ppn} (ranks a node), {hostfile} and {cores}. On one machine there is {ranks} alone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from apps.records import MeritError

HOSTFILE, SLOTS, WORKER, CORES = "MERIT_HOSTFILE", "MERIT_SLOTS", "PARSL_WORKER_RANK", "MERIT_CORES"


def filled(words: Sequence[str], ranks: int, environment: Mapping[str, str] = os.environ) -> list[str]:
    """The launcher's words for so many ranks, in the slot that the environment names."""
    told: dict[str, object] = {"ranks": ranks}
    if any(f"{{{name}}}" in word for word in words for name in ("ppn", "hostfile", "cores")):
        told |= _slot(ranks, environment)
    return [_fill(word, told) for word in words]


def _slot(ranks: int, environment: Mapping[str, str]) -> dict[str, object]:
    missing = [name for name in (SLOTS, WORKER) if not environment.get(name)]
    if missing and not environment.get(HOSTFILE):
        raise MeritError(
            f"the site's launcher wants a slot of nodes, and this process has none: {' and '.join(missing)} not set; "
            "ranks are started by a worker of the executor `training`"
        )
    hostfile = Path(environment.get(HOSTFILE) or Path(environment[SLOTS]) / environment[WORKER])
    nodes = len(hostfile.read_text(encoding="utf-8").split())
    ppn = -(-ranks // nodes)
    groups = environment[CORES].split(":") if environment.get(CORES) else []
    if groups and ppn > len(groups):
        raise MeritError(
            f"training.ranks={ranks}: a training task has {nodes} nodes here, with room for {len(groups)} ranks each; "
            f"use at most {nodes * len(groups)} ranks, or more nodes a slot (an option of the site)"
        )
    return {"ppn": ppn, "hostfile": hostfile, "cores": ":".join(groups[:ppn])}


def _fill(word: str, told: Mapping[str, object]) -> str:
    for name, value in told.items():
        word = word.replace(f"{{{name}}}", str(value))
    return word
