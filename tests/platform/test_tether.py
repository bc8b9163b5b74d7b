"""What is tied to a driver ends with it, with all that it started, and what is not cut off for good goes on."""

from __future__ import annotations

import os
import platform
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from apps.platform import tether
from tests.checkout import wait_for
from tests.platform.test_processes import gone

ROOT = Path(__file__).parents[2]
# a manager with a worker, which says when both are there; the worker saves its work at SIGTERM if it has the time
WORKER = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *a: (open('saved', 'w'), sys.exit())); open('{0}', 'w'); time.sleep(60)"
MANAGER = "import subprocess, sys, os; p = subprocess.Popen([sys.executable, '-c', sys.argv[1]]); open('pids', 'w').write(f'{os.getpid()} {p.pid}'); p.wait()"
DRIVER = """
import subprocess, sys
from apps.platform import tether
anchor = tether.Anchor()
subprocess.Popen(anchor.tie(sys.argv[1], ["127.0.0.1"], 5), shell=True)
input()
"""


def tied_to_a_driver(folder: Path) -> tuple[subprocess.Popen, list[int]]:
    command = shlex.join([sys.executable, "-c", MANAGER, WORKER.format("ready")])
    path = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, command], cwd=folder, env={**os.environ, **path}, stdin=subprocess.PIPE
    )
    assert wait_for((folder / "ready").exists, 60)
    return driver, [int(word) for word in (folder / "pids").read_text().split()]


def test_all_end_when_the_driver_is_killed_and_may_save(tmp_path):
    driver, pids = tied_to_a_driver(tmp_path)
    driver.kill()
    driver.wait()
    assert gone(pids, 20) and (tmp_path / "saved").exists()


def test_all_end_when_what_ties_them_is_killed_itself(tmp_path):
    """As by a launcher that ends its own processes."""
    driver, family = tied_to_a_driver(tmp_path)
    tied = int(Path(f"/proc/{family[0]}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(tied, signal.SIGKILL)
    assert gone(family, 10)
    driver.kill()
    driver.wait()


def test_workers_end_with_their_manager_and_another_is_started(tmp_path):
    driver, (manager, worker) = tied_to_a_driver(tmp_path)
    (tmp_path / "ready").unlink()
    os.kill(manager, signal.SIGKILL)
    assert gone([manager, worker], 20) and (tmp_path / "saved").exists()
    assert wait_for((tmp_path / "ready").exists, 60)
    others = [int(word) for word in (tmp_path / "pids").read_text().split()]
    assert not {manager, worker} & set(others)
    driver.kill()
    driver.wait()
    assert gone(others, 20)


@pytest.fixture
def anchor():
    found = tether.Anchor()
    yield found
    found.close()


def test_a_command_knows_its_host_and_bears_its_name(anchor, tmp_path):
    """Parsl's managers are told apart by it: one that is started again is another one."""
    script = f'echo "$0 $MERIT_NODE" >> {tmp_path}/said; [ $(wc -l < {tmp_path}/said) = 1 ] && kill -9 $$; true'
    command = anchor.tie(f"sh -c {shlex.quote(script)} {tether.HOST}", ["127.0.0.1"], 1)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    assert subprocess.run(command, shell=True, cwd=ROOT, env={**os.environ, "PATH": path}, timeout=60).returncode == 0
    first, second = ((tmp_path / "said").read_text()).splitlines()
    assert first != second
    for line in (first, second):
        name, node = line.split()
        assert node == platform.node() and name.rpartition("-")[0] == node


def test_the_exit_status_is_the_command_s(anchor):
    command = anchor.tie(shlex.join([sys.executable, "-c", "raise SystemExit(7)"]), ["127.0.0.1"], 1)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    assert subprocess.run(command, shell=True, cwd=ROOT, env={**os.environ, "PATH": path}).returncode == 7


def test_another_driver_at_the_same_port_is_no_anchor(anchor):
    with pytest.raises(ConnectionRefusedError), tether._reached("127.0.0.1", anchor.port, "0" * 32):
        pass
    with tether._reached("127.0.0.1", anchor.port, anchor.token) as connection:
        anchor.close()
        assert connection.recv(1) == b""
    with pytest.raises(ConnectionRefusedError), tether._reached("127.0.0.1", anchor.port, anchor.token):
        pass
    anchor.__init__()  # for the fixture to close


def test_who_cannot_reach_it_waits_and_ends_nothing():
    ended = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tether.time, "sleep", lambda seconds: (_ for _ in ()).throw(TimeoutError))
        with pytest.raises(
            TimeoutError
        ):  # refused by an address that was never the driver's: it would ask again and again
            tether._watch(["127.0.0.1"], 1, "x", lambda: ended.append(1))
    assert not ended
