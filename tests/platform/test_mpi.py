"""Ranks are started as the site says; what is missing is named; a rank's fault is told where they were started."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from apps.platform import devices, faults, mpi, processes
from apps.records import MeritError
from tests.site import here

MAIN = "apps.training.main"


def test_the_launcher_is_found_beside_the_interpreter_and_its_number_filled_in(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    (tmp_path / "mpiexec").touch()
    assert mpi.starter(("mpiexec", "-n", "{ranks}", "--env=N={ranks}"), 3) == [
        str(tmp_path / "mpiexec"), "-n", "3", "--env=N=3",
    ]  # fmt: skip


@pytest.mark.parametrize("launcher, said", [(None, "no way to start MPI ranks"), (("mpiexek", "-n"), "no 'mpiexek'")])
def test_a_site_that_cannot_start_ranks_is_told_before_anything_starts(launcher, said):
    with pytest.raises(MeritError, match=said):
        mpi.check(launcher)


def test_a_missing_mpi4py_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setattr(mpi.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MeritError, match=r"mpi4py is not installed; pip install .*\[mpi\]"):
        mpi.check(("mpiexec", "-n", "{ranks}"))


def ended(folder, ranks: int, output: str = "") -> None:
    """As if so many ranks had, on this machine."""
    (folder / mpi.OUTPUT).write_text(output)
    mpi._raise_fault(folder, ranks, 1, [])


def slot(folder, *nodes: str) -> dict[str, str]:
    """The environment of a training worker that has these nodes."""
    (folder / "slots").mkdir()
    (folder / "slots" / "0").write_text("\n".join(nodes))
    return {**here.environment(folder / "job", nodes), "MERIT_SLOTS": str(folder / "slots"), "PARSL_WORKER_RANK": "0"}


def test_the_first_fault_is_kept_and_what_follows_it_is_not(tmp_path):
    mpi.leave_fault(tmp_path, mpi.World(2, 4), MeritError("the loss became nan"))
    mpi.leave_fault(tmp_path, mpi.World(0, 4), RuntimeError("connection closed by peer"))
    kept = json.loads((tmp_path / mpi.FAULT).read_text())
    assert (kept["rank"], kept["own"], kept["message"]) == (2, True, "the loss became nan")
    with pytest.raises(MeritError, match="^rank 2 of 4: the loss became nan$") as raised:
        ended(tmp_path, 4)
    assert isinstance(raised.value.__cause__, processes.RemoteTraceback)


def test_a_fault_that_is_not_the_users_keeps_its_name(tmp_path):
    mpi.leave_fault(tmp_path, mpi.World(), KeyError("x"))
    with pytest.raises(RuntimeError, match="^KeyError: 'x'$") as raised:
        ended(tmp_path, 1)
    assert not isinstance(raised.value, MeritError)


def test_ranks_that_end_without_a_word_are_told_by_their_output(tmp_path):
    with pytest.raises(processes.WorkerDied, match="the 2 ranks ended with status 1.*\nKilled"):
        ended(tmp_path, 2, "Killed")


@pytest.mark.parametrize(
    ("ends", "host"),
    [
        (["", "", "killed"], "x3"),  # nobody else has a word: the launcher has
        (["lost", "killed", ""], "x2"),  # the first to tell is not where it began
        (["", "ill", ""], "x2"),  # it says so itself
    ],
    ids="-".join,
)
def test_the_node_that_let_ranks_down_is_named(tmp_path, monkeypatch, ends, host):
    """Real ranks on three hosts that are names; whoever started them would be blamed otherwise."""
    for name, value in slot(tmp_path, "x1.cluster", "x2.cluster", "x3.cluster").items():
        monkeypatch.setenv(name, value)
    (tmp_path / "spec.json").write_text(json.dumps(ends))
    words = (str(tmp_path / "job" / "mpiexec"), "-n", "{ranks}", "--ppn", "{ppn}", "--hostfile", "{hostfile}")
    with pytest.raises((RuntimeError, MeritError)) as raised:
        mpi.launch(words, 3, "tests.platform.ranks_that_die", tmp_path / "spec.json")
    assert faults.kind(raised.value) == faults.MACHINE and faults.host(raised.value) == f"{host}.cluster"


def test_ranks_of_which_a_node_is_gone_are_not_waited_for(tmp_path, monkeypatch):
    """The driver says so; a launcher would perhaps never."""
    monkeypatch.setattr(mpi, "LOOK_S", 0.1)
    monkeypatch.setenv("MERIT_CORES", "0:0")
    for name, value in slot(tmp_path, "x1.cluster", "x2.cluster").items():
        monkeypatch.setenv(name, value)
    hostfile = tmp_path / "slots" / "0"
    (tmp_path / "spec.json").write_text(json.dumps(["sleeps", "sleeps"]))
    Path(f"{hostfile}{mpi.GONE}").write_text("x2.cluster\n")
    words = (str(tmp_path / "job" / "mpiexec"), "-n", "{ranks}", "--ppn", "{ppn}", "--hostfile", "{hostfile}")
    with pytest.raises(processes.WorkerDied, match="x2.cluster does not answer any more") as raised:
        mpi.launch(words, 2, "tests.platform.ranks_that_die", tmp_path / "spec.json", hostfile=str(hostfile))
    assert faults.host(raised.value) == "x2.cluster"


def test_where_nobody_knows_which_node_it_was_none_is_named(tmp_path):
    """Then it is that of the worker (stages.execute)."""
    mpi.leave_fault(tmp_path, mpi.World(0, 3), ConnectionResetError(104, "Connection reset by peer"))
    with pytest.raises(RuntimeError) as raised:
        ended(tmp_path, 3, "x3: rank 2 died from signal 15")
    assert faults.kind(raised.value) == faults.MACHINE and not faults.host(raised.value)


@pytest.mark.parametrize(
    "given, said",
    [
        ("out: x\noptions: {}", "spec.yaml: a mapping with out, inputs and options is expected; it lacks inputs"),
        ("- 1", "it lacks inputs, options, out"),
        (
            "{out: x, inputs: {}, options: {training: {parallel: ddp, ranks: 2}}}",
            "training.ranks=2, but 1 were started",
        ),
    ],
)
def test_a_process_of_its_own_fails_with_its_own_words(tmp_path, given, said):
    """The last one has MPI, whose world is this one process."""
    (tmp_path / "spec.yaml").write_text(given)
    with pytest.raises(MeritError, match=said):
        mpi.launch(None, 1, MAIN, tmp_path / "spec.yaml")


def test_mpi_comes_before_torch():
    import torch  # noqa: F401

    with pytest.raises(RuntimeError, match="torch was imported before MPI"):
        mpi.join()


def test_one_process_needs_no_mpi():
    assert mpi.World() == mpi.World(rank=0, size=1, local_rank=0, nodes=1)


def available(*names):
    return lambda name: name in names


@pytest.mark.parametrize(
    "device, there, expected",
    [
        ("cpu", ("gloo", "nccl"), "gloo"),
        ("cuda:3", ("gloo", "nccl"), "nccl"),
        ("xpu:0", ("xccl", "ccl", "gloo"), "xccl"),
        ("xpu:0", ("ccl", "gloo"), "ccl"),
    ],
)
def test_the_backend_is_that_of_the_device(monkeypatch, device, there, expected):
    monkeypatch.setattr("torch.distributed.is_backend_available", available(*there))
    assert devices.backend(device) == expected


@pytest.mark.parametrize("device, said", [("xpu:1", "none of xccl, ccl is in this torch"), ("mps", "no backend")])
def test_a_device_without_a_backend_is_named(monkeypatch, device, said):
    monkeypatch.setattr("torch.distributed.is_backend_available", available("gloo"))
    with pytest.raises(MeritError, match=said):
        devices.backend(device)


def test_gloo_is_here():
    assert devices.backend("cpu") == "gloo"


@pytest.mark.parametrize(
    "device, local_rank, there, expected",
    [("cpu", 5, 1, "cpu"), ("cuda:1", 0, 4, "cuda:1"), ("xpu", 3, 12, "xpu:3"), ("xpu", 3, 1, "xpu:0")],
)
def test_a_rank_takes_its_own_device(monkeypatch, device, local_rank, there, expected):
    monkeypatch.setattr(devices, "count", lambda kind: there)
    assert devices.of_rank(device, local_rank) == expected


def test_more_ranks_than_devices_are_refused(monkeypatch):
    monkeypatch.setattr(devices, "count", lambda kind: 2)
    with pytest.raises(MeritError, match="rank 2 of this node has no device: of cuda there are 2"):
        devices.of_rank("cuda", 2)
