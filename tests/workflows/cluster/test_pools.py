"""A pool whose blocks never come up fails with what they said; one that lost a block does not."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from parsl.jobs.states import JobState, JobStatus

from workflows.cluster import pools as cluster

ENDED = {"missing": JobState.MISSING, "lost": JobState.FAILED, "cancelled": JobState.CANCELLED}


class Pool:
    """What of an executor a block's error handler touches."""

    label = "inference"

    def __init__(self) -> None:
        self.failed: list[BaseException] = []

    def set_bad_state_and_fail_all(self, error: BaseException) -> None:
        self.failed.append(error)


@pytest.mark.parametrize(
    ("states", "fails"),
    [
        ([], False),
        (["missing", "missing"], False),
        (["missing"] * 3, True),
        (["running", "missing", "missing", "missing"], True),  # another block is no help to these
        (["missing", "missing", "lost"], False),
        (["lost", "missing", "missing", "missing"], True),
        (["missing", "missing", "running", "missing"], True),
        (["lost"] * 9, False),
    ],
)
def test_three_blocks_in_a_row_that_never_came_up(tmp_path, states, fails):
    (tmp_path / "err").write_text("module: command not found\n")
    told = {
        str(number): JobStatus(ENDED.get(state, JobState.RUNNING), stderr_path=str(tmp_path / "err"))
        for number, state in enumerate(states)
    }
    pool = Pool()
    cluster.never_up(pool, told)
    assert len(pool.failed) == fails
    assert all("'inference' did not come up in 3 trials" in str(e) and "not found" in str(e) for e in pool.failed)


def test_a_full_queue_is_waited_for():
    refused = {str(n): JobStatus(JobState.MISSING, "qsub: would exceed queue's per-user limit") for n in range(9)}
    pool = Pool()
    cluster.never_up(pool, refused)
    assert not pool.failed


def test_what_a_block_begins_with(tmp_path):
    (tmp_path / "env.sh").write_text('export ROLE="$1"\n')
    value = "two words & 'a quote'"
    lines = cluster.worker_init({"MINE": value}, "export LAST=$ROLE", script=tmp_path / "env.sh", role="training")
    shown = 'import os; print(os.environ["MINE"], os.environ["LAST"], os.environ["PYTHONPATH"])'
    script = f"{lines}\npython -c {shlex.quote(shown)}\ncommand -v process_worker_pool.py"
    told = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout.splitlines()
    assert told[0].startswith(f"{value} training {cluster.ROOT}")
    assert told[1] == str(Path(sys.executable).parent / "process_worker_pool.py")
    lines = cluster.worker_init({}, script=tmp_path / "none.sh", role="training")
    assert subprocess.run(["bash", "-c", f"{lines}\nexit 0"], capture_output=True).returncode == 1


@pytest.mark.parametrize("size, parts", [(1, ["x3", "x1", "x2"]), (2, ["x3 x1", "x2"]), (4, ["x3 x1 x2"])])
def test_hosts_are_shared_out_to_slots(tmp_path, size, parts):
    (tmp_path / "nodefile").write_text("x3\nx1\nx3\nx2\n")
    script = f'{cluster.hostfiles(size)}\necho "$MERIT_SLOTS"'
    environment = {"PATH": "/usr/bin:/bin", "PBS_NODEFILE": str(tmp_path / "nodefile")}
    told = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    folder = Path(told.stdout.strip())
    assert [(folder / str(n)).read_text().split() for n in range(len(parts))] == [part.split() for part in parts]
    assert len(list(folder.iterdir())) == len(parts)
