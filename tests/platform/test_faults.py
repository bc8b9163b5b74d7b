"""Which faults are tried again: the machine's, a lack of memory, an input that is gone. All others are the user's."""

from __future__ import annotations

import errno
import pickle

import numpy as np
import pytest
from parsl.executors.high_throughput.errors import ManagerLost, WorkerLost

from apps.platform import faults, mpi, processes, requests
from apps.records import Artifact, MeritError

XPU = "level_zero backend failed with error: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)"
CPU = "[enforce fail at alloc_cpu.cpp:119] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 7e12"


def out_of_memory() -> Exception:
    import torch

    return torch.OutOfMemoryError("XPU out of memory. Tried to allocate 2.00 GiB")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (WorkerLost(3, "x1"), faults.MACHINE),
        (ManagerLost(b"ab", "x1"), faults.MACHINE),
        (processes.WorkerDied("a worker process was killed by SIGKILL"), faults.MACHINE),
        (processes.TimedOut("a worker process took longer than 5 s and was killed"), faults.MACHINE),
        (requests.AskedToEnd("training was asked to end (SIGTERM)"), faults.MACHINE),
        (ConnectionResetError(104, "Connection reset by peer"), faults.MACHINE),
        (OSError(errno.ESTALE, "Stale file handle"), faults.MACHINE),
        (OSError("Unable to open file (errno = 116, error message = 'Stale file handle')"), faults.MACHINE),
        (RuntimeError("rank 1 of 4: RuntimeError: Connection closed by peer [127.0.0.1]:2345"), faults.MACHINE),
        (RuntimeError("mpiexec: CXI alloc failed"), faults.MACHINE),
        (RuntimeError("Native API failed: UR_RESULT_ERROR_DEVICE_LOST"), faults.MACHINE),
        (MemoryError(), faults.MEMORY),
        (np._core._exceptions._ArrayMemoryError((10**12,), np.dtype("f8")), faults.MEMORY),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), faults.MEMORY),
        (RuntimeError(XPU), faults.MEMORY),
        (RuntimeError(CPU), faults.MEMORY),
        (RuntimeError("rank 0 of 2: OutOfMemoryError: CUDA out of memory."), faults.MEMORY),
        (faults.LostInput("gone", [Artifact("grade", "ab", "/store/grade/ab")]), faults.INPUT),
        (MeritError("the disk is full"), faults.OWN),
        (MeritError("a judge said: connection refused, out of memory"), faults.OWN),
        (ValueError("out of memory"), faults.OWN),
        (KeyError("solver"), faults.OWN),
        (FileNotFoundError(errno.ENOENT, "No such file or directory"), faults.OWN),
        (OSError(errno.ENOSPC, "No space left on device"), faults.OWN),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), faults.OWN),
    ],
    ids=lambda value: str(value)[:40],
)
def test_the_kind_of_a_fault(error, kind):
    assert faults.kind(error) == kind


def test_torch_s_own_error_is_a_lack_of_memory():
    assert faults.kind(out_of_memory()) == faults.MEMORY


def test_where_it_happened_stays_with_an_exception_that_is_sent():
    error = processes.WorkerDied("killed by SIGKILL")
    faults.at(error, "x1")
    faults.at(error, "the driver")
    assert faults.host(pickle.loads(pickle.dumps(error))) == "x1" == faults.host(WorkerLost(0, "x1"))
    assert faults.killed(error) and not faults.killed(processes.WorkerDied("ended with status 1"))


def test_a_lost_input_is_still_named_after_it_was_sent():
    lost = Artifact("grade", "ab", "/store/grade/ab")
    again = pickle.loads(pickle.dumps(faults.LostInput("an input is gone", [lost])))
    assert (str(again), again.lost) == ("an input is gone", (lost,))


def test_ranks_that_end_because_one_has_died_are_not_at_fault(tmp_path):
    mpi.leave_fault(tmp_path, mpi.World(0, 2), requests.AskedToEnd("training was asked to end (SIGTERM)"))
    (tmp_path / mpi.OUTPUT).touch()
    with pytest.raises(MeritError, match="^rank 0 of 2: training was asked to end") as raised:
        mpi._raise_fault(tmp_path, 2, 1, [])
    assert faults.kind(raised.value) == faults.MACHINE and faults.of_another(raised.value)


@pytest.mark.parametrize(
    ("said", "another"),
    [
        (
            "rank 0 of 2: RuntimeError: [gloo/transport/tcp/pair.cc:534] Connection closed by peer [10.0.0.2]:53121",
            True,
        ),
        ("rank 0 of 2: RuntimeError: [gloo] Timed out waiting 1800000ms for recv operation to complete", True),
        ("rank 0 of 2: DistNetworkError: Failed to recv, got 0 bytes. Connection was likely closed.", True),
        ("rank 0 of 2: OSError: [Errno 116] Stale file handle", False),
        ("rank 0 of 2: RuntimeError: Native API failed: UR_RESULT_ERROR_DEVICE_LOST", False),
    ],
)
def test_who_tells_of_a_broken_connection_need_not_be_where_it_broke(said, another):
    error = RuntimeError(said)
    assert faults.kind(error) == faults.MACHINE and faults.of_another(error) == another
