"""What the driver itself costs: tasks a second through the real path, and the planning of a large DAG.

    python tests/benchmarks/driver.py [--tasks 3000] [--planned 100000] [--folder FOLDER]

Tasks go from a plan through the live launcher, Parsl's threads, the memoizer and the store into artifacts and back, with the
display. Each does next to nothing, and waits for two of the layer before it. The second time all of them are found in the store.
What is planned is a real run of post_train of many shards.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import wait
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from apps.platform import devices
from apps.stages import Stage
from tests.benchmarks.figures import Figure
from workflows import config as configuration
from workflows import sites, store
from workflows.driver import live
from workflows.plan import Plan

LAYER = 100  # tasks that can be at work at the same time
TICK = Stage("tick", "tests.benchmarks.driver", "cpu")


def tick(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """The stage: a small file."""
    (out / "number.txt").write_text(str(options["number"]))
    return {"inputs": sum(map(len, inputs.values()))}


def layered(tasks: int) -> Plan:
    """A DAG of so many tasks."""
    plan, before, now = Plan(), [], []
    for number in range(tasks):
        given = {"before": [before[number % LAYER], before[(number + 1) % LAYER]]} if before else {}
        now.append(plan.add(TICK, given, number=number))
        if len(now) == LAYER:
            before, now = now, []
    return plan


def carried_out(tasks: int, folder: Path) -> dict[str, float]:
    """Seconds to plan and to carry out so many tasks; what is in the store already is found there."""
    began = time.perf_counter()
    plan = layered(tasks)
    planned = time.perf_counter() - began
    site, shelf = sites.load("local", device="cpu"), store.Store(folder / "store")
    began = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        with live.at_work(plan.nodes.values(), shelf, site, folder / "parsl", "benchmark"):
            started = time.perf_counter()
            launch = live.launcher(shelf, configuration.Run(), site)
            for node in plan.nodes.values():
                node.future = launch(node)
            wait([node.future for node in plan.nodes.values()])
            ended = time.perf_counter()
            assert not live.first_fault(plan.nodes.values())
    return {"planned": planned, "started": started - began, "worked": ended - started}


def planned(tasks: int) -> tuple[int, float, float]:
    """(tasks, seconds, peak gigabytes of this process) of planning a run of scripted agents with about so many."""
    from workflows import post_train

    rounds = 20
    shards = tasks // (rounds * 4)  # rollout, grade, replay and assign for each
    words = [f"rounds={rounds}", "engine.name=scripted", f"rollout.shards={shards}", f"rollout.tasks={shards}"]
    began = time.perf_counter()
    plan = Plan()
    post_train.dag(configuration.load(post_train.Config, None, words), plan)
    return len(plan.nodes), time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def figures(tasks: int = 3000, count: int = 100_000, folder: str | None = None) -> Iterator[Figure]:
    """Tasks a second, executed and found in the store, and the planning of a large DAG. `folder`: where the store is made."""
    if count:
        cpu = time.process_time()
        nodes, seconds, peak = planned(count)
        told = f"{nodes:,} tasks of post_train, {time.process_time() - cpu:.1f} s of CPU, peak {peak:.2f} GB"
        yield Figure("plan_a_large_dag", seconds, "s", remark=told)
    with tempfile.TemporaryDirectory(dir=folder) as made:
        for name in ("tasks_executed", "tasks_found"):
            cpu = time.process_time()
            took = carried_out(tasks, Path(made))
            cost = (time.process_time() - cpu) / tasks * 1e3
            told = f"{cost:.2f} ms of CPU each, {devices.cores()} cores, load {os.getloadavg()[0]:.0f}"
            yield Figure(name, tasks / took["worked"], "tasks/s", remark=told)


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--tasks", type=int, default=3000)
    given.add_argument("--planned", type=int, default=100_000, help="0: none")
    given.add_argument("--folder", default=None, help="where the store is made; default: the system's temporary folder")
    options = given.parse_args()
    for figure in figures(options.tasks, options.planned, options.folder):
        print(f"{figure.name}: {figure.value:,.1f} {figure.unit} ({figure.remark})", flush=True)


if __name__ == "__main__":
    main()
