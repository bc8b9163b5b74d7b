"""Warm workers, with real processes: what they answer, how they die, and that none outlives its parent."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from apps import artifacts, leaf
from apps.platform import processes
from apps.records import MeritError

ROOT = Path(__file__).parents[2]
HELD_LOCK = "import re; re.match('(a|aa)+$', 'a' * 80 + 'b')"  # hours, and never lets go of the interpreter's lock


@pytest.fixture(autouse=True)
def end():
    yield
    processes.close()


def pid(pool: str = "test") -> int:
    return processes.run(pool, os.getpid)


def gone(numbers: list[int], within_s: float = 30) -> bool:
    """Whether all these processes end in that time: ample for a busy machine, short of their own 60 seconds."""
    until = time.monotonic() + within_s
    while any(map(running, numbers)):
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def running(number: int) -> bool:
    """A zombie, which only waits for someone to ask after it, does not run."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def group(leader: int) -> list[int]:
    """All processes of a worker's group."""
    found = subprocess.run(["ps", "-eo", "pid=,pgid="], capture_output=True, text=True, check=True).stdout.split()
    return [int(p) for p, g in zip(found[::2], found[1::2], strict=True) if int(g) == leader]


def test_a_process_is_another_one_and_is_kept_warm():
    assert not processes.warm("test")
    assert pid() == pid() != os.getpid() and processes.warm("test")
    assert pid("other") != pid()


def test_what_a_module_keeps_stays_between_calls():
    processes.run("test", sys.setrecursionlimit, 1234)
    assert processes.run("test", sys.getrecursionlimit) == 1234 != sys.getrecursionlimit()


def test_as_many_processes_as_calls_at_one_time():
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(lambda _: processes.run("test", time.sleep, 1.0), range(3)))
    assert len(processes._idle[("test", 1, ())]) == 3


def test_threads_and_environment_are_set_before_anything_is_imported():
    asked = [
        processes.run("test", os.getenv, name, threads=3, env={"MINE": "1"}) for name in ("OMP_NUM_THREADS", "MINE")
    ]
    assert asked == ["3", "1"]
    assert os.getenv("MINE") is None


def test_torch_has_the_threads_of_the_call_also_after_a_task_changed_them():
    import torch

    assert processes.run("test", torch.get_num_threads, threads=1) == 1
    processes.run("test", torch.set_num_threads, 2, threads=1)
    assert processes.run("test", torch.get_num_threads, threads=1) == 1


def test_an_exception_comes_back_with_where_it_was_raised():
    with pytest.raises(MeritError, match="there is no 'shaply'; did you mean") as caught:
        processes.run("test", leaf.find, "credit", "shaply")
    assert "in find" in str(caught.value.__cause__)
    with pytest.raises(ValueError, match="math domain error"):
        processes.run("test", math.sqrt, -1)
    with pytest.raises(SystemExit):
        processes.run("test", sys.exit, 3)


def test_what_does_not_pickle_is_told_and_the_process_lives_on():
    worker = pid()
    with pytest.raises(TypeError, match="cannot pickle"):
        processes.run("test", threading.Lock)
    with pytest.raises(TypeError, match="has to be a function of a module"):
        processes.run("test", lambda: 1)
    assert pid() == worker


def test_a_timeout_kills_the_whole_group():
    processes.run("test", os.spawnlp, os.P_NOWAIT, "sleep", "sleep", "60")
    family = group(pid())
    assert len(family) == 3  # the worker, its watch, the sleep
    with pytest.raises(processes.TimedOut, match="longer than 0.2 s"):
        processes.run("test", time.sleep, 60, timeout_s=0.2)
    assert gone(family)
    assert pid() not in family


def test_a_killed_worker_is_named_and_the_next_call_gets_a_fresh_one():
    worker = pid()
    with pytest.raises(processes.WorkerDied, match="SIGKILL; perhaps the machine ran out of memory"):
        processes.run("test", os.kill, worker, signal.SIGKILL)
    assert gone(group(worker))
    assert pid() != worker
    worker = pid()
    os.kill(worker, signal.SIGKILL)  # while it is idle
    assert gone([worker]) and not processes.warm("test")
    assert pid() != worker


def test_the_last_words_of_a_dead_worker_are_quoted():
    processes.run("test", os.write, 2, b"terrible things\n")
    with pytest.raises(processes.WorkerDied, match="(?s)ended with status 5.*terrible things"):
        processes.run("test", os._exit, 5)


def test_close_frees_a_call_that_waits():
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(processes.run, "test", time.sleep, 60)
        while not processes._all:
            time.sleep(0.02)
        time.sleep(0.3)
        processes.close()
        assert isinstance(waiting.exception(timeout=30), processes.WorkerDied)


@pytest.mark.parametrize("work", ["time.sleep, 60", f"exec, {HELD_LOCK!r}"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_no_worker_outlives_its_parent(work, how):
    script = (
        "import os, time; from apps.platform.processes import run\n"
        "run('test', os.spawnlp, os.P_NOWAIT, 'sleep', 'sleep', '60'); print(run('test', os.getpid), flush=True)\n"
        f"run('test', {work})"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=ROOT)
    family = group(int(parent.stdout.readline()))
    time.sleep(0.3)
    assert len(family) == 3 and all(map(running, family))
    parent.send_signal(how)
    parent.wait()
    parent.stdout.close()
    assert gone(family)


def test_ctrl_c_does_not_reach_a_worker():
    worker = pid()
    os.kill(worker, signal.SIGINT)
    assert pid() == worker


def test_an_artifact_whose_writer_is_killed_is_not_there(tmp_path):
    code = (
        "import os; from apps import artifacts as a\n"
        f"with a.new({str(tmp_path)!r}, 's', 'k', {{}}): os.kill(os.getpid(), 9)"
    )
    with pytest.raises(processes.WorkerDied):
        processes.run("test", exec, code)
    assert not artifacts.locate(tmp_path, "s", "k").exists()
    assert artifacts.sweep(tmp_path) == 1
