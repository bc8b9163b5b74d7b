"""Parsl on a cluster: worker pools of HighThroughputExecutor, and what all sites that have them want set alike.

A site says where a pool's blocks come from (a Parsl provider with a launcher) and what each worker has to itself. This file
knows no machine. Not used: MPIExecutor, which loses results when several tasks wait for nodes; ranks are started by the
tasks themselves (apps/platform/mpi.py).
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apps.platform.processes import LAST_WORDS, ROOT
from apps.records import MeritError

QUIET_ABOVE = 500  # nodes: Parsl's logs are a file a worker
WAITING = 8  # tasks of `network` at once
TRIALS = 3  # blocks in a row that never came up, before the run fails


@dataclass(frozen=True, slots=True)
class Workers:
    """The workers of one label."""

    provider: Any  # Parsl's, with a launcher: where their blocks come from
    count: int  # on each node
    accelerators: Sequence[str] = ()  # what each is to see, as ZE_AFFINITY_MASK or CUDA_VISIBLE_DEVICES calls it
    cores: Sequence[str] = ()  # what each is bound to; none: all
    drain_s: int | None = None  # after which a block takes no further task


def pools(
    workers: Mapping[str, Workers],
    folder: Path,
    address: str,
    *,
    heartbeat_s: int = 60,
    logs: str = "/tmp",
    encrypted: bool = True,
) -> list[Any]:
    """The executors: a pool for each label, which reaches the driver at `address`, and threads of the driver for `network`.

    A pool that hears nothing of the interchange, which ends with the driver however that ends, ends after `heartbeat_s`.
    """
    from parsl import ThreadPoolExecutor
    from parsl.executors import HighThroughputExecutor
    from parsl.executors.high_throughput.executor import DEFAULT_LAUNCH_CMD

    here = shlex.quote(os.getcwd()).replace("{", "{{").replace("}", "}}")  # paths of a user's own leaves are relative
    found: list[Any] = [
        HighThroughputExecutor(
            label=label,
            provider=of.provider,
            address=address,
            launch_cmd=f"env --chdir={here} {DEFAULT_LAUNCH_CMD}",
            interchange_launch_cmd=interchange(),
            max_workers_per_node=of.count,
            cores_per_worker=1e-3,  # or a node with few cores would have fewer workers
            available_accelerators=list(of.accelerators),
            cpu_affinity=":".join(("list", *of.cores)) if of.cores else "none",
            heartbeat_period=max(1, heartbeat_s // 4),
            heartbeat_threshold=heartbeat_s,
            drain_period=of.drain_s,
            worker_logdir_root=str(Path(logs) / f"merit-{os.getuid()}" / folder.parent.name),
            block_error_handler=never_up,
            encrypted=encrypted,
        )
        for label, of in workers.items()
    ]
    return [*found, ThreadPoolExecutor(label="network", max_threads=WAITING)]


def configured(
    executors: Sequence[Any],
    folder: Path,
    memoizer: Any,
    *,
    retries: int,
    nodes: int,
    strategy: str = "simple",
    period_s: float = 0.5,
    idle_s: float = 120,
) -> Any:
    """Parsl's configuration; its files go into `folder`. The strategy starts a block again that was lost."""
    from parsl import Config
    from parsl.dataflow.dependency_resolvers import DEEP_DEPENDENCY_RESOLVER
    from parsl.logconfigs.noop import NoopLogging

    return Config(
        executors=list(executors),
        memoizer=memoizer,
        dependency_resolver=DEEP_DEPENDENCY_RESOLVER,  # stages are given lists of futures
        run_dir=str(folder),
        retries=retries,
        strategy=strategy,
        strategy_period=period_s,
        max_idletime=idle_s,
        initialize_logging=NoopLogging() if nodes > QUIET_ABOVE else False,
        usage_tracking=0,
        exit_mode="cleanup",
    )


def worker_init(
    exports: Mapping[str, str], *lines: str, script: Path | None = None, role: str = "", programs: str = ""
) -> str:
    """What a block runs before its workers: variables, the site's environment for a role if it has a `script`, and `lines`.

    `programs` is where Parsl's own lie; default: where those of this process do.
    """
    told = [f"export {name}={shlex.quote(value)}" for name, value in exports.items()]
    programs = shlex.quote(programs or str(Path(sys.executable).parent))
    return "\n".join(
        [
            *told,
            *([f"source {shlex.quote(str(script))} {role} || exit 1"] if script else []),
            f'export PATH={programs}:"$PATH" PYTHONPATH={shlex.quote(str(ROOT))}"${{PYTHONPATH:+:$PYTHONPATH}}"',
            *lines,
        ]
    )


def hostfiles(slot_nodes: int) -> str:
    """Shell lines that share the hosts of $PBS_NODEFILE out to slots, as apps/platform/slots.py reads them."""
    share = '!seen[$0]++ { slot = int(count / size); count += 1; print > (folder "/" slot) }'
    return (
        'export MERIT_SLOTS="$(mktemp -d "$PWD/slots.XXXXXX")"\n'
        f'awk -v size={slot_nodes} -v folder="$MERIT_SLOTS" \'{share}\' "$PBS_NODEFILE" || exit 1'
    )


def interchange() -> list[str]:
    """The command of Parsl's interchange, which ends when the driver does: else its workers would go on without a driver."""
    program = Path(sys.executable).parent / "interchange.py"
    if shutil.which("setpriv") is None:
        raise MeritError(
            "setpriv is not on PATH; it comes with util-linux, and ends Parsl's interchange with the driver"
        )
    return ["setpriv", "--pdeathsig", "TERM", str(program)]


def address_of(interface: str) -> str:
    """The IPv4 address of a network interface; MeritError with those that there are."""
    import socket

    from parsl.addresses import address_by_interface

    try:
        return address_by_interface(interface)
    except OSError as error:
        there = ", ".join(name for _, name in socket.if_nameindex())
        raise MeritError(
            f"interface={interface}: no such network interface with an address (there are: {there})"
        ) from error


def never_up(pool: Any, status: Mapping[str, Any]) -> None:
    """Fails a pool whose blocks end before any worker of them was heard of; a block that was lost later is started again."""
    from parsl.jobs.states import JobState

    ended = [state for _, state in sorted(status.items(), key=lambda item: int(item[0])) if state.terminal]
    last = [state for state in ended if "limit" not in (state.message or "")][
        -TRIALS:
    ]  # a full queue may take it later
    if len(last) == TRIALS and all(state.state == JobState.MISSING for state in last):
        told = last[-1].stderr_summary or last[-1].stdout_summary or last[-1].message or "it left no output"
        told = told.strip()[-LAST_WORDS:]
        pool.set_bad_state_and_fail_all(
            MeritError(f"the workers of {pool.label!r} did not come up in {TRIALS} trials; the last one said:\n{told}")
        )
