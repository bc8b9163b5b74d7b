"""A site of the tests: this machine as a cluster, through Parsl's real interchanges and managers.

A block is a manager, on a host of its own where `hosts` names network namespaces; `threads` names executors that are to be
the driver's threads, which saves a test their processes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from apps import records
from workflows import sites

ROOT = Path(sites.__file__).resolve().parents[1]


class Options(records.Options):
    """How large the cluster is, and how patient."""

    managers: int = 1  # of every executor
    workers: int = 2  # of every manager
    threads: str = "network"  # labels, with commas between
    hosts: str = ""  # network namespaces, with commas between: a manager in each
    address: str = "127.0.0.1"  # of the interchange
    retries: int = 2
    timeout_s: float = 0  # of a task; 0 = none
    heartbeat_s: int = 2  # a manager is lost after twice as long
    grace_s: float = 10
    margin_s: float = 120


def site(options: Options) -> sites.Site:
    threads, hosts = options.threads.split(","), options.hosts.replace(",", " ")
    managers = len(hosts.split()) or options.managers

    def executor(label: str) -> Any:
        from parsl import HighThroughputExecutor, ThreadPoolExecutor
        from parsl.launchers import SimpleLauncher
        from parsl.launchers.base import Launcher
        from parsl.providers import LocalProvider

        class OnHosts(Launcher):
            """Block after block on one host after the other."""

            def __call__(self, command: str, *shape: Any) -> str:
                number = "block=${JOBNAME#*block-}; host=${hosts[$((${block%%.*} % " + str(managers) + "))]}"
                run = 'ip netns exec $host unshare --uts bash -c "hostname $host; exec $COMMAND"'
                return f"export COMMAND='{command}'\nhosts=({hosts})\n{number}\n{run}\n"

        if label in threads:
            return ThreadPoolExecutor(label=label, max_threads=2)
        return HighThroughputExecutor(
            label=label,
            address=options.address,
            max_workers_per_node=options.workers,
            cores_per_worker=1e-3,
            heartbeat_period=options.heartbeat_s,
            heartbeat_threshold=2 * options.heartbeat_s,
            encrypted=False,
            block_error_handler=False,
            provider=LocalProvider(
                init_blocks=managers,
                min_blocks=managers,
                max_blocks=managers,
                launcher=OnHosts() if hosts else SimpleLauncher(),
                worker_init=f"export PATH={Path(sys.executable).parent}:$PATH PYTHONPATH={ROOT}:$PYTHONPATH",
            ),
        )

    def parsl(folder: Path, memoizer: Any) -> Any:
        from parsl import Config
        from parsl.dataflow.dependency_resolvers import DEEP_DEPENDENCY_RESOLVER

        return Config(
            executors=[executor(label) for label in sites.LABELS],
            memoizer=memoizer,
            dependency_resolver=DEEP_DEPENDENCY_RESOLVER,
            run_dir=str(folder),
            initialize_logging=False,
            strategy="simple",
            strategy_period=0.5,
            usage_tracking=0,
            exit_mode="cleanup",
        )

    return sites.Site(
        name="htex",
        parsl=parsl,
        device="cpu",
        inference_threads=1,
        training_threads=1,
        training_slots=options.workers,
        inference_slots=options.workers,
        launcher=("mpiexec", "-n", "{ranks}"),
        checkpoint_minutes=0,
        grace_s=options.grace_s,
        margin_s=options.margin_s,
        elsewhere=True,
        own_process=True,
        timeouts_s=dict.fromkeys(sites.LABELS, options.timeout_s) if options.timeout_s else {},
        retries=options.retries,
    )
