"""Ranks: the processes of one task that compute together, on one node or on many. Starts them, and tells each which it is.

A task that wants ranks starts `launch`; each rank runs its module under `python -m mpi4py`, so that an exception in one
aborts them all, calls `join`, and then meets the others in `connected`. MPI only says who is where and hands an address
round; tensors go through torch.distributed. How ranks are started is a fact about a machine: the site's `launcher`.

A fault in a rank is left in a file beside its SPEC, by the first that fails, and raised again where `launch` was called, with
the node on which it happened (faults.host), as far as the rank or the launcher tells it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apps.platform import devices, faults, launchers, processes, requests, slots
from apps.records import MeritError

FAULT = "fault.json"
OUTPUT = "output.txt"
GONE = ".gone"  # after a hostfile's name: a file with the name of a node of it that is gone, as the driver has found
LOOK_S, GRACE_S = 2.0, 30.0  # between looks for it; that a launcher has to end its ranks
HOST_SUFFIX = "MERIT_HOST_SUFFIX"  # a site sets it where host names alone lead to a slow network
DEVICE_ID = "MERIT_DEVICE_ID"  # a site sets it to 1 where ranks are to be bound to their devices when they meet
PROGRAM = "MERIT_MPIEXEC"  # a site sets it to the machine's own mpiexec, where the environment may hold another
INSTALL = "pip install -c constraints.txt -e '.[mpi]'"


@dataclass(frozen=True, slots=True)
class World:
    """Which of the ranks this process is. As it stands by default: alone, without MPI."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # among the ranks of this node: which of its devices to take
    nodes: int = 1


def join() -> World:
    """Who this process is, as MPI tells. To be called before torch is imported: oneCCL must find MPI initialised."""
    if "torch" in sys.modules:
        raise RuntimeError("torch was imported before MPI: call mpi.join() first")
    from mpi4py import MPI

    everyone = MPI.COMM_WORLD
    node = everyone.Split_type(MPI.COMM_TYPE_SHARED)
    nodes = everyone.allreduce(int(node.Get_rank() == 0))
    return World(everyone.Get_rank(), everyone.Get_size(), node.Get_rank(), nodes)


@contextmanager
def connected(world: World, device: str) -> Iterator[None]:
    """torch.distributed among the ranks, by the backend of `device`; the default process group while the block lasts."""
    from torch import distributed

    backend = devices.backend(device)
    bound = {}
    if os.environ.get(DEVICE_ID) == "1" and device.partition(":")[2]:  # users disagree whether it hangs with or without
        import torch

        bound = {"device_id": torch.device(device)}
    address, store = _store(world)
    libraries = {"RANK": world.rank, "WORLD_SIZE": world.size, "LOCAL_RANK": world.local_rank}
    libraries |= {"MASTER_ADDR": address, "MASTER_PORT": store.port}
    os.environ.update({name: str(value) for name, value in libraries.items()})  # DeepSpeed and oneCCL read them
    distributed.init_process_group(backend, store=store, rank=world.rank, world_size=world.size, **bound)
    try:
        yield
        distributed.barrier()  # a rank that leaves early would break a connection that others still use
    finally:
        distributed.destroy_process_group()


def first_says(world: World, value: Any) -> Any:
    """Rank 0's value, on every rank; all have to ask. Small things only: it is pickled."""
    if world.size == 1:
        return value
    from mpi4py import MPI

    return MPI.COMM_WORLD.bcast(value)


def all_say(world: World, value: Any) -> list[Any]:
    """Every rank's value, by rank, on every rank; all have to ask."""
    if world.size == 1:
        return [value]
    from mpi4py import MPI

    return MPI.COMM_WORLD.allgather(value)


def launch(
    launcher: Sequence[str] | None, ranks: int, module: str, spec: Path, threads: int = 1, hostfile: str | None = None
) -> None:
    """Runs `python -m MODULE SPEC` as so many ranks and waits; one rank is started without MPI.

    `threads` are shared by the ranks, which are spread over the nodes of `hostfile`, or of this worker's slot. Raises what the
    first rank that failed has told, as a MeritError with its rank where it was one, and processes.WorkerDied where it could tell
    nothing, or where a file beside `hostfile` (GONE) names a node that is gone: a launcher may wait for it for ever. All ranks are
    gone then. They end with the caller's process group too, so that a caller that is killed as a group leaves none behind. SIGUSR1
    and SIGTERM are handed on to the launcher, and by it to the ranks.
    """
    command, nodes = [sys.executable, "-m", module, str(spec)], []
    if ranks > 1:
        check(launcher)
        slot = {**os.environ, **({slots.HOSTFILE: hostfile} if hostfile else {})}
        nodes = _nodes(launcher, slot)
        command = [*starter(launcher, ranks, slot), sys.executable, "-m", "mpi4py", *command[1:]]
    env = processes.variables(max(1, threads // ranks), {})
    with open(spec.parent / OUTPUT, "wb") as output:
        ended = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        try:
            with requests.handled(lambda number, frame: ended.send_signal(number)):
                _wait(ended, hostfile)
        except BaseException:
            ended.terminate()  # the launcher hands SIGTERM on to its ranks, and would leave them on SIGKILL
            with suppress(subprocess.TimeoutExpired):
                ended.wait(GRACE_S)
            ended.kill()
            ended.wait()
            raise
    if ended.returncode:
        _raise_fault(spec.parent, ranks, ended.returncode, nodes)


def _wait(launch: subprocess.Popen[bytes], hostfile: str | None) -> None:
    while True:
        with suppress(subprocess.TimeoutExpired):
            launch.wait(LOOK_S)
            return
        if hostfile and (gone := Path(hostfile + GONE)).is_file():
            error = processes.WorkerDied(
                f"{(host := gone.read_text(encoding='utf-8').strip())} does not answer any more"
            )
            faults.at(error, host)
            raise error


def check(launcher: Sequence[str] | None, elsewhere: bool = False) -> None:
    """MeritError where several ranks cannot be started; it names what is missing. Imports and starts nothing.

    With `elsewhere` they are started on another machine, so what this one has does not matter.
    """
    if launcher is None:
        raise MeritError(
            "training.ranks > 1: this site says no way to start MPI ranks (its `launcher`); use training.ranks=1"
        )
    if elsewhere:
        return
    if importlib.util.find_spec("mpi4py") is None:
        raise MeritError(f"training.ranks > 1: mpi4py is not installed; {INSTALL}")
    _program(launcher[0])


def starter(launcher: Sequence[str], ranks: int, environment: Mapping[str, str] = os.environ) -> list[str]:
    """The launcher's command for so many ranks: {ranks} and what else it says of a slot filled in, its program found."""
    return [_program(launcher[0]), *slots.filled(launcher[1:], ranks, environment)]


def leave_fault(folder: Path, world: World, error: BaseException) -> None:
    """Keeps why this rank fails, unless another rank has said so before: what follows a fault only hides it."""
    fault = {
        "rank": world.rank,
        "host": platform.node(),
        "own": isinstance(error, MeritError),
        "ended": isinstance(error, requests.AskedToEnd),
        "message": str(error) if isinstance(error, MeritError) else f"{type(error).__name__}: {error}",
        "traceback": "".join(traceback.format_exception(type(error), error, error.__traceback__)),
    }
    aside = folder / f"{FAULT}.{world.rank}"
    aside.write_text(json.dumps(fault), encoding="utf-8")
    with suppress(FileExistsError):
        os.link(aside, folder / FAULT)  # whole, and the first wins


def _raise_fault(folder: Path, ranks: int, status: int, nodes: Sequence[str]) -> None:
    """`nodes` are those that the ranks were on, as the launcher was given them; [] = this one alone."""
    file, output = folder / FAULT, (folder / OUTPUT).read_text(errors="replace")
    host, cause = launchers.dead_node(output), None
    if file.is_file():
        fault = json.loads(file.read_text(encoding="utf-8"))
        error, cause = _told(fault, ranks), processes.RemoteTraceback(f"\n{fault['traceback']}")
        if not faults.of_another(error):
            host = launchers.node_of(fault["rank"], ranks, fault["host"], nodes)
    else:
        words = output.strip()[-processes.LAST_WORDS :]
        error = processes.WorkerDied(f"the {ranks} ranks ended with status {status}. The end of their output:\n{words}")
    if host:
        faults.at(error, launchers.called(host, nodes))
    raise error from cause


def _told(fault: Mapping[str, Any], ranks: int) -> Exception:
    who = f"rank {fault['rank']} of {ranks}: " if ranks > 1 else ""
    kind = requests.AskedToEnd if fault["ended"] else MeritError if fault["own"] else RuntimeError
    return kind(who + fault["message"])


def _nodes(launcher: Sequence[str], environment: Mapping[str, str] = os.environ) -> list[str]:
    """The nodes of the slot that the launcher is given; [] where it is given none."""
    files = slots.filled([word for word in launcher if "{hostfile}" in word], 1, environment)
    return Path(files[0].rpartition("=")[2]).read_text(encoding="utf-8").split() if files else []


def _program(name: str) -> str:
    """The environment's own program before another on PATH: an mpiexec fits the library that mpi4py was built for."""
    if name == "mpiexec" and os.environ.get(PROGRAM):
        return os.environ[PROGRAM]
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.is_file() else shutil.which(name)
    if found is None:
        raise MeritError(f"training.ranks > 1: there is no {name!r}, neither in {beside.parent} nor on PATH; {INSTALL}")
    return found


def _store(world: World) -> tuple[str, Any]:
    """Where the ranks meet: rank 0's address, and the store that it opens at a free port."""
    from torch.distributed import TCPStore

    address = "127.0.0.1" if world.nodes == 1 else socket.gethostname() + os.environ.get(HOST_SUFFIX, "")
    store = TCPStore(address, 0, world.size, True, wait_for_workers=False) if world.rank == 0 else None
    if world.size == 1:
        return address, store
    from mpi4py import MPI

    # asked of the store that is open, since a port that was only found free may be taken by then
    address, port = MPI.COMM_WORLD.bcast((address, store.port) if store else None)
    return address, store or TCPStore(address, port, world.size, False)
