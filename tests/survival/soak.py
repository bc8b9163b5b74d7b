"""A long run of trivial tasks through real managers: what grows in the driver and beside it, as JSON.

    python -m tests.survival.soak --rounds 50 --agents 4 --shards 64 FOLDER

Looked at when a tenth of the rounds is done, and at the end: numbers of processes, threads and open files of the driver and of
all that it started, the driver's resident memory, and the files of the run. A round's tasks wait for those of the round before;
what nobody waits for any more is packed, `--least` results at a time, and at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import wait
from pathlib import Path
from typing import Any

from apps.stages import Stage
from tests.survival.cluster import SITE
from workflows import config as configuration
from workflows import sites, store
from workflows.driver import live, packing
from workflows.plan import Node, Plan

TICK = Stage("tick", "tests.survival.soak", "cpu")


def tick(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """The stage: a small file."""
    (out / "number.txt").write_text(str(options["shard"]))
    return {"inputs": sum(map(len, inputs.values()))}


def planned(rounds: int, agents: int, shards: int) -> tuple[Plan, list[list[Node]]]:
    """The plan, and its nodes by round."""
    plan, layers = Plan(), []
    for number in range(1, rounds + 1):
        plan.round, before = number, layers[-1] if layers else []
        pairs = [(agent, shard) for agent in range(agents) for shard in range(shards)]
        given = [{"before": [before[i], before[i - 1]]} if before else {} for i in range(len(pairs))]
        layers.append(
            [plan.add(TICK, g, round=number, agent=a, shard=s) for g, (a, s) in zip(given, pairs, strict=True)]
        )
    return plan, layers


def counted(folder: Path) -> dict[str, float]:
    """What is there at this moment."""
    family = _family(os.getpid())
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    return {
        "threads": len(os.listdir("/proc/self/task")),
        "open_files": len(os.listdir("/proc/self/fd")),
        "resident_mib": round(resident, 1),
        "processes": len(family),
        "threads_of_all": sum(_entries(pid, "task") for pid in family),
        "open_files_of_all": sum(_entries(pid, "fd") for pid in family),
        "files": sum(len(files) for _, _, files in os.walk(folder)),
    }


def _family(pid: int) -> list[int]:
    """The processes of a session or below this one; whoever was adopted by init is known by the mark in its environment."""
    mark = f"MERIT_SOAK_OF={pid}".encode()
    return [int(f.parent.name) for f in Path("/proc").glob("[0-9]*/environ") if mark in _bytes(f)]


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""


def _entries(pid: int, name: str) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/{name}"))
    except OSError:
        return 0


def carried_out(rounds: int, agents: int, shards: int, least: int, folder: Path, **options: Any) -> dict[str, Any]:
    os.environ["MERIT_SOAK_OF"] = str(os.getpid())
    plan, layers = planned(rounds, agents, shards)
    site, shelf = sites.load(str(SITE), threads="inference,training,network", **options), store.Store(folder / "store")
    packing.LEAST, packed = least, packing.Packing(shelf.root, folder, least > 0)
    early = layers[max(0, rounds // 10 - 1)]
    with open(folder / "log", "w") as log, contextlib.redirect_stdout(log):
        with live.at_work(plan.nodes.values(), shelf, site, folder / "parsl", "soak"), packed.beside():
            began = time.perf_counter()
            launch = live.launcher(shelf, configuration.Run(), site)
            for node in plan.nodes.values():
                node.future = launch(node)
            packed.follow(plan.nodes.values())
            launched = time.perf_counter()
            wait([node.future for node in early])
            with packed.at_it:
                first = counted(folder)
            wait([node.future for node in plan.nodes.values()])
            ended = time.perf_counter()
            with packed.at_it:
                last = counted(folder)
            if (fault := live.first_fault(plan.nodes.values())) is not None:
                raise fault
    packed.pack()
    packed_s = time.perf_counter() - ended
    time.sleep(1)
    after = counted(folder)
    tasks = len(plan.nodes)
    speed = {"tasks": tasks, "tasks_per_s": round(tasks / (ended - began), 1), "launched_s": round(launched - began, 1)}
    speed["until_all_is_packed_s"] = round(packed_s, 1)
    return {**speed, "at_a_tenth": first, "at_the_end": last, "afterwards": after}


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = {"rounds": 50, "agents": 4, "shards": 64, "managers": 2, "workers": 2, "least": packing.LEAST}
    for name, size in sizes.items():
        given.add_argument(f"--{name}", type=int, default=size)
    given.add_argument("folder", type=Path)
    print(json.dumps(carried_out(**vars(given.parse_args())), indent=1))


if __name__ == "__main__":
    main()
