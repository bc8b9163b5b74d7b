"""ALCF's Aurora: nodes of twelve tiles, PBS, PALS. Inside of one job, or from a login node through jobs that come and go.

Inside of a job the driver is on its first node. There are the workers of `cpu` too, and those of `training`, one a slot of
whole nodes, which start ranks by our own mpiexec line, over nodes that the driver gives them. `inference` has a worker a tile (or
group of tiles) on each other node, which it may have to lend. From a login node a block of either is a job of its own, `cpu` stays there. Nothing here was run on Aurora:
docs/aurora.md says what that leaves open. The environment of workers is env.sh's.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from apps import records
from apps.platform import room
from apps.records import MeritError
from workflows.cluster import pbs, queues, restart, roles, tiles
from workflows.cluster import pools as cluster
from workflows.cluster.pools import Workers
from workflows.cluster.queues import Queue
from workflows.cluster.roles import Shares
from workflows.sites import Site

HERE = Path(__file__).resolve().parent
QUEUES = (  # ALCF's user guides, August 2026
    Queue("debug", 1, 2, 1, running=1),
    Queue("debug-scaling", 2, 256, 1, running=1),
    Queue("capacity", 1, 16, 168, running=2),
    Queue("prod", 256, 1024, 12, running=10),
    Queue("prod", 1025, 1999, 18, running=10),
    Queue("prod", 2000, 10624, 24, running=10),
)
# a group a tile; cores 0 and 52 are the system's, and eight at a time from 1 on would straddle the sockets
CORES = "1-8:9-16:17-24:25-32:33-40:41-48:53-60:61-68:69-76:77-84:85-92:93-100"
CORES_A_TILE, THREADS_A_NODE = 8, 208
PBS = ("#PBS -l filesystems={}", "#PBS -l place=scatter", "#PBS -k doe")
LOGIN_WORKERS = 4  # of `cpu`, on a login node that others use too


class Options(records.Options):
    """What may be set of Aurora."""

    where: Literal["auto", "job", "login"] = Field(
        "auto", description="job: inside of one; login: submit blocks as jobs; auto: job where PBS_NODEFILE is set"
    )
    account: str = Field("", description="the project that jobs are charged to; wanted on a login node")
    queue: str = Field("debug", description="debug, debug-scaling, capacity or prod")
    walltime: str = Field("01:00:00", description="of a job, HH:MM:SS")
    nodes: int = Field(1, ge=1, description="of a job; on a login node: of a block of `inference`")
    blocks: int = Field(1, ge=1, description="on a login node: most blocks of `inference` at once")
    filesystems: str = Field("home:flare", description="that a job needs, as PBS has to be told")
    frameworks: Literal["2025.3.1", "2026.1.0"] = Field(
        default_factory=lambda: os.environ.get("MERIT_FRAMEWORKS") or "2026.1.0",  # as the driver's job has it
        validate_default=True,
        description="version of the module `frameworks`",
    )
    venv: str = Field("", description="the virtual environment of workers; default: the driver's own")
    hierarchy: Literal["FLAT", "COMPOSITE"] = Field(
        default_factory=lambda: os.environ.get("MERIT_HIERARCHY") or "FLAT",
        validate_default=True,
        description="how Level Zero counts tiles: 0 to 11, as `frameworks` sets it, or 0.0 to 5.1",
    )
    tensor_parallel: Literal[1, 2, 4, 8] = Field(
        1, description="tiles of an inference worker; not 12, by which few models' heads are divided"
    )
    training_nodes: int | Literal["measured"] = Field(
        "measured",
        description="set aside for training; measured: as many as it wants in each round, lent by inference; 0: all nodes do both",
    )
    slot_nodes: int = Field(1, ge=1, description="nodes of a training task; it has room for 12 ranks on each")
    cpu_workers: int = Field(32, ge=1, description="workers of `cpu`, on the first node")
    device: str = Field("xpu", description="what workers compute on; cpu to try this site without accelerators")
    tiles: int = Field(12, ge=1, le=12, description="of a node that are used")
    cores: str = Field(CORES, description="of each tile's worker or rank, groups joined by colons")
    interface: str = Field("hsn0", description="the network that workers reach the driver by")
    vni: bool = Field(True, description="false: mpiexec --no-vni, for DAOS and against 'No VNIs available'")
    encrypted: bool = Field(True, description="what goes between driver and workers")
    staging: str = Field(
        "", description="node-local folder for copies of models and adapters, such as /tmp/merit; default: no copies"
    )
    logs: str = Field("/tmp", description="where each node keeps its workers' logs; none above 500 nodes")
    heartbeat_s: int = Field(60, ge=4, description="after which a side that is not heard of counts as gone")
    retries: int = Field(2, ge=0, description="of a task that the machine let down")
    timeouts_s: dict[Literal["inference", "training", "cpu", "network"], float] = Field(
        {"inference": 3600.0, "training": 21600.0, "cpu": 3600.0, "network": 3600.0},
        description="after which a task hangs and is killed, by executor",
    )
    longest_task_s: int = Field(
        1200, ge=1, description="on a login node: a block takes no task in its last so many seconds"
    )
    checkpoint_minutes: float = Field(
        10, ge=0, description="between the checkpoints of a training task; 0 = at signals alone"
    )
    margin_s: float = Field(180, ge=0, description="all work is over so many seconds before the end of the job")

    @field_validator("walltime", mode="before")
    @classmethod
    def _walltime(cls, given: Any) -> Any:
        return queues.clock(given) if isinstance(given, int) else given  # YAML takes 1:00:00 for a number in base 60


def site(options: Options) -> Site:
    inside = options.where == "job" or (options.where == "auto" and "PBS_NODEFILE" in os.environ)
    nodefile = os.environ.get("MERIT_NODEFILE") or os.environ.get("PBS_NODEFILE")  # preflight's good nodes, or all
    hosts = roles.hosts(nodefile) if inside and nodefile else []
    _check(options, inside, bool(hosts))
    shares = roles.shared_out(hosts, options.training_nodes, options.slot_nodes, options.tiles) if hosts else None

    def parsl(folder: Path, memoizer: Any) -> Any:
        folder = folder.absolute()
        folder.mkdir(parents=True, exist_ok=True)
        if not inside:
            return _from_login(options, folder, memoizer)
        if not shares:
            raise MeritError(
                "where=job, but PBS_NODEFILE is not set: this is no job; submit one (jobs/), or where=login"
            )
        return _in_job(options, folder, memoizer, hosts, shares)

    nodes = len(hosts) or options.nodes
    return Site(
        name="aurora",
        parsl=parsl,
        device=options.device,
        elsewhere=True,
        inference_threads=CORES_A_TILE * options.tensor_parallel,
        inference_slots=nodes * len(masks(options)),
        training_threads=CORES_A_TILE * options.tiles * options.slot_nodes,
        training_slots=shares.slots if shares else max(1, min(nodes // options.slot_nodes, options.tiles)),
        launcher=launcher(options),
        hosts=tuple(hosts),
        shares=shares,
        on_hosts=plain(options),
        cores=":".join(cores(options)),
        devices_per_node=0 if options.device == "cpu" else 12 if options.hierarchy == "FLAT" else 6,
        staging=Path(options.staging) if options.staging else None,
        checkpoint_minutes=options.checkpoint_minutes,
        margin_s=options.margin_s,
        own_process=True,
        timeouts_s=dict(options.timeouts_s),
        retries=options.retries,
        capacity=nodes * options.tiles,
        unit="devices",
        holds={"inference": options.tensor_parallel, "training": options.tiles * options.slot_nodes},
        ordered=("inference", "training", "cpu"),
        **{"batch": pbs.PBS(), **(pbs.around() if inside else {})},
    )


def masks(options: Options) -> tuple[str, ...]:
    """ZE_AFFINITY_MASK of each inference worker of a node."""
    return tiles.groups(tiles.names(options.hierarchy, options.tiles), options.tensor_parallel)


def cores(options: Options) -> list[str]:
    """The cores of each tile that is used."""
    return options.cores.split(":")[: options.tiles]


def plain(options: Options) -> tuple[str, ...]:
    """The command that starts one process a node, or several, which see all of it."""
    return ("mpiexec", "-n", "{ranks}", "--ppn", "{ppn}", "--hostfile", "{hostfile}", "--envall", *_vni(options))


def launcher(options: Options) -> tuple[str, ...]:
    """The command that starts ranks, run on the first node by a worker that has a slot. --gpu-bind fails under FLAT: rank.sh binds."""
    placed = ("mpiexec", "-n", "{ranks}", "--ppn", "{ppn}", "--hostfile", "{hostfile}", "--cpu-bind", "list:{cores}")
    return (*placed, "--envall", *_vni(options), "/bin/bash", str(HERE / "rank.sh"))


def _in_job(options: Options, folder: Path, memoizer: Any, hosts: list[str], shares: Shares) -> Any:
    """Everything over the nodes of this job, in blocks that stay."""
    from parsl.launchers import SimpleLauncher
    from parsl.providers import LocalProvider

    def provider(role: str, nodes: list[str]) -> Any:
        nodefile = folder / f"{role}.hosts"
        nodefile.write_text("".join(f"{host}\n" for host in nodes), encoding="utf-8")
        everywhere = role == "inference"
        told = {"PBS_NODEFILE": str(nodefile), **({rooms[role]: str(folder)} if role in rooms else {})}
        found = LocalProvider(
            nodes_per_block=len(nodes) if everywhere else 1,
            min_blocks=1,  # with none, workers that are idle for a while would end, and their models with them
            launcher=_each_node(options) if everywhere else SimpleLauncher(),
            worker_init=_init(options, role, folder, told),
        )
        return restart.on_who_answers(found, nodefile, plain(options)) if everywhere else found

    rooms = {"inference": room.LENDS, "training": room.BORROWS} if shares.lends else {}
    workers = {
        "inference": _playing(options, provider("inference", [*shares.playing] or hosts)),
        "training": _training(options, provider("training", hosts[:1]), shares.slots),
        "cpu": Workers(provider("cpu", hosts[:1]), options.cpu_workers),
    }
    return _configured(options, folder, memoizer, workers, len(hosts))


def _from_login(options: Options, folder: Path, memoizer: Any) -> Any:
    """Blocks of `inference` and `training` as jobs, submitted when there are tasks and given back when there are none."""
    from parsl.launchers import SimpleLauncher
    from parsl.providers import LocalProvider, PBSProProvider

    if not options.account:
        raise MeritError(
            "site aurora: account is the project that jobs are charged to, and there is no default; add "
            "--site-option account=PROJECT to submit from this login node, or submit jobs/pipeline.pbs"
        )

    def provider(role: str, nodes: int, blocks: int, launch: Any) -> Any:
        return PBSProProvider(
            account=options.account,
            queue=options.queue,
            walltime=options.walltime,
            nodes_per_block=nodes,
            cpus_per_node=THREADS_A_NODE,
            init_blocks=0,
            max_blocks=blocks,
            scheduler_options="\n".join(PBS).format(options.filesystems),
            launcher=launch,
            worker_init=_init(options, role, folder, {}, slots=role == "training"),
        )

    walltime_s, nodes = queues.seconds(options.walltime), _training_block(options)
    drain_s = max(walltime_s // 2, walltime_s - options.longest_task_s)
    local = LocalProvider(launcher=SimpleLauncher(), min_blocks=1, worker_init=_init(options, "cpu", folder, {}))
    playing = provider("inference", options.nodes, options.blocks, _each_node(options))
    workers = {
        "inference": _playing(options, playing, drain_s),
        "training": _training(
            options, provider("training", nodes, 1, SimpleLauncher()), nodes // options.slot_nodes, drain_s
        ),
        "cpu": Workers(local, min(LOGIN_WORKERS, options.cpu_workers)),
    }
    # a block that is idle goes back; asking PBS more often helps nobody
    how: dict[str, Any] = {"strategy": "htex_auto_scale", "period_s": 10, "idle_s": 300}
    return _configured(options, folder, memoizer, workers, options.nodes * options.blocks, **how)


def _configured(
    options: Options, folder: Path, memoizer: Any, workers: dict[str, Workers], nodes: int, **how: Any
) -> Any:
    address = cluster.address_of(options.interface)
    alike: dict[str, Any] = {"heartbeat_s": options.heartbeat_s, "logs": options.logs, "encrypted": options.encrypted}
    executors = cluster.pools(workers, folder, address, **alike)
    return cluster.configured(executors, folder, memoizer, retries=options.retries, nodes=nodes, **how)


def _playing(options: Options, provider: Any, drain_s: int | None = None) -> Workers:
    names, groups = masks(options), tiles.groups(cores(options), options.tensor_parallel)
    return Workers(provider, len(names), names, groups, drain_s)


def _training(options: Options, provider: Any, slots: int, drain_s: int | None = None) -> Workers:
    """A worker a slot. What a task computes without ranks it computes on a tile of the first node, its worker's own."""
    names = tiles.names(options.hierarchy, options.tiles)[: max(1, slots)]
    return Workers(provider, len(names), names, (), drain_s)


def _each_node(options: Options) -> Any:
    from parsl.launchers import MpiExecLauncher

    return MpiExecLauncher(bind_cmd="--cpu-bind", overrides=" ".join(("--ppn 1", *_vni(options))))


def _init(options: Options, role: str, folder: Path, exports: dict[str, str], slots: bool = False) -> str:
    """What a block of workers begins with, with `slots` by making a hostfile for each worker: the driver does not know its nodes."""
    venv = options.venv or os.environ.get("MERIT_VENV") or (sys.prefix if sys.prefix != sys.base_prefix else "")
    told = {"MERIT_FRAMEWORKS": options.frameworks, "MERIT_HIERARCHY": options.hierarchy, "MERIT_VENV": venv, **exports}
    lines = [f"cd {shlex.quote(str(folder))}"]  # Parsl's launchers leave files where they are run
    if role == "training":
        told["MERIT_CORES"] = ":".join(cores(options))
    if slots:
        lines.append(cluster.hostfiles(options.slot_nodes))
    programs = f"{venv}/bin" if venv else ""
    return cluster.worker_init(told, *lines, script=HERE / "env.sh", role=role, programs=programs)


def _check(options: Options, inside: bool, in_job: bool) -> None:
    """MeritError where Aurora has no such job, or a node no such workers."""
    if len(options.cores.split(":")) < options.tiles or options.tensor_parallel > options.tiles:
        raise MeritError(
            f"site aurora: tiles={options.tiles} tensor_parallel={options.tensor_parallel} and {len(options.cores.split(':'))} "
            "groups of cores: there have to be a group a tile, and as many tiles as an engine has"
        )
    if in_job:
        return  # PBS has granted it
    queues.check(QUEUES, options.queue, options.nodes, options.walltime)
    if not inside:
        queues.check(QUEUES, options.queue, _training_block(options), options.walltime)


def _training_block(options: Options) -> int:
    """Nodes of a training block that a login node submits."""
    wanted = options.slot_nodes if options.training_nodes == "measured" else options.training_nodes
    if not isinstance(wanted, int) or wanted < options.slot_nodes:
        raise MeritError(
            f"site aurora: training_nodes={wanted}: on a login node training has jobs of its own, of a number of nodes "
            f"from slot_nodes={options.slot_nodes}"
        )
    return wanted // options.slot_nodes * options.slot_nodes


def _vni(options: Options) -> tuple[str, ...]:
    return () if options.vni else ("--no-vni",)
