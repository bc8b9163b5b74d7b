"""A driver that ends in any way leaves nothing at work, and the next one ends in the adapters of an undisturbed run.

The real command with a tiny real model, on managers and workers of their own; the undisturbed run is the local site's.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load

from tests.checkout import PATIENCE_S, Checkout, adapters, checked_out, made, told, wait_for, whole

pytestmark = pytest.mark.slow
SITE = Path(__file__).with_name("site_htex.py")
CLUSTER = ("--site", str(SITE), "--site-option", "threads=cpu,network")
SETTINGS = (
    "name=small", "rounds=1", "promotion.rule=always", "sampling.max_new_tokens=8", "topology.name=single",
    "credit.name=uniform", "tasks={name: arithmetic, levels: [2], train: 6, validation: 4, test: 4}",
    "rollout={tasks: 4, samples: 4, shards: 4}", "training={step_rows: 2, epochs: 4, lora: {r: 2}}",
    "evaluation={tasks: 2, samples: 1, validation_tasks: 2, validation_samples: 1, shards: 1, shown_tasks: 1}",
)  # fmt: skip
ENDED_S = 8  # in which workers elsewhere notice that their driver is gone, on a busy machine


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    with checked_out(tmp_path_factory.mktemp("checkout"), SETTINGS) as found:
        yield found


@pytest.fixture(scope="module")
def undisturbed(checkout: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("undisturbed")
    checkout.finish(where)
    assert len(adapters(where)) == 2
    return where


def at_work(checkout: Checkout, where: Path, more: int) -> subprocess.Popen[bytes]:
    """The run, when it has done `more` further tasks."""
    goal = len(made(where)) + more
    run = checkout.start(where, *CLUSTER)
    assert wait_for(lambda: run.poll() is not None or len(made(where)) >= goal)
    assert run.poll() is None, told(where)
    return run


def kept(before: dict[str, str], where: Path) -> dict[str, str]:
    assert before.items() <= made(where).items(), "a finished task was done again"
    assert whole(where)
    return made(where)


def test_a_driver_that_ends_in_any_way_is_gone_on_with(checkout, undisturbed, tmp_path):
    where = tmp_path / "run"
    run = at_work(checkout, where, 2)
    second = checkout.start(where, *CLUSTER)
    assert second.wait(60) == 1
    assert f"is in use by another run: process {run.pid} on " in told(where)  # whose output the first one's is now

    os.killpg(run.pid, signal.SIGINT)  # as a terminal does
    assert run.wait(60) == 130 and "Traceback" not in (where / "output.txt").read_text()
    assert wait_for(lambda: not checkout.alive(), ENDED_S), "processes outlived their run"
    before = kept({}, where)

    run = at_work(checkout, where, 2)
    killed = run.pid
    run.kill()
    run.wait()
    gone = time.monotonic()
    run = at_work(checkout, where, 0)  # at once, beside whatever is still at work
    group = {pid for pid in checkout.alive() if _started_before(pid, run.pid)}
    assert wait_for(lambda: not group & set(checkout.alive()), ENDED_S), "workers outlived their driver"
    print(f"the last orphan ended {time.monotonic() - gone:.1f} s after its driver")
    before = kept(before, where)

    goal = len(before) + 1
    assert wait_for(lambda: run.poll() is not None or len(made(where)) >= goal)
    assert f"the driver before this one was killed: process {killed} on " in told(where)
    run.terminate()
    assert run.wait(60) == 143, told(where)
    assert "What is finished is kept; go on with:" in told(where) and "Traceback" not in told(where)
    assert wait_for(lambda: not checkout.alive(), ENDED_S), "processes outlived their run"
    before = kept(before, where)

    checkout.finish(where, *CLUSTER)
    kept(before, where)
    assert adapters(where) == adapters(undisturbed)
    assert made(where).keys() == made(undisturbed).keys()
    assert wait_for(lambda: not checkout.alive(), ENDED_S)
    assert not list((where / "store" / "tmp").glob("*")) and not (where / "store" / "damaged").exists()


def damaged(where: Path) -> dict[str, Path]:
    """Three artifacts of the finished run: one is cut short, one has other contents of the same length, one is gone."""
    found = {stage: next((where / "store" / stage).glob("??/*")) for stage in ("rollout", "grade", "train")}
    os.truncate(next(found["rollout"].glob("*.h5")), 100)
    file = next(f for f in sorted(found["grade"].iterdir()) if f.name not in ("manifest.json", "facts.json"))
    file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:])
    shutil.rmtree(found["train"])
    return found


def test_damaged_artifacts_are_found_and_made_again(checkout, undisturbed, tmp_path):
    where = shutil.copytree(undisturbed, tmp_path / "run", symlinks=True)
    before = made(where)
    places = damaged(where)
    checkout.finish(where, *CLUSTER)
    now = made(where)
    again = {f"{stage}/{place.name}" for stage, place in places.items()}
    assert {name for name in now if now[name] != before.get(name)} == again
    assert whole(where) and adapters(where) == adapters(undisturbed)
    for stage in ("rollout", "grade"):
        assert f"{stage} {places[stage].name} is damaged: " in told(where)
    assert len(list((where / "store" / "damaged").iterdir())) == 2


def ranks(checkout: Checkout) -> list[int]:
    """The processes that train together, without what started them."""
    commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") for pid in checkout.alive()}
    return [p for p, words in commands.items() if b"python" in words[0] and b"apps.training.main" in words]


def test_training_of_which_a_rank_is_killed_begins_again(checkout, undisturbed, tmp_path):
    """Two ranks train what one has trained in the undisturbed run, the same within rounding; all else is found."""
    where = shutil.copytree(undisturbed, tmp_path / "run", symlinks=True)
    run = checkout.start(where, *CLUSTER, "training.parallel=ddp", "training.ranks=2")
    assert wait_for(lambda: run.poll() is not None or len(ranks(checkout)) == 2)
    os.kill(ranks(checkout)[1], signal.SIGKILL)
    assert run.wait(PATIENCE_S) == 0, told(where)
    assert "; tried again in 2 s (1 of 2)" in told(where)
    one, two = ({name: load(content) for name, content in adapters(w).items()} for w in (undisturbed, where))
    assert all(np.allclose(one[f][name], two[f][name], atol=1e-5) for f in one for name in one[f])


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_told_and_with_room_the_run_goes_on(checkout, undisturbed, tmp_path):
    where = tmp_path / "run"
    with small_disk(where / "store", "700k"):
        assert checkout.start(where, *CLUSTER).wait(PATIENCE_S) == 1
        assert "the disk is full: " in told(where) and "make room there or choose another store" in told(where)
        before = kept({}, where)
        assert before
        subprocess.run(["mount", "-o", "remount,size=50m", str(where / "store")], check=True)
        checkout.finish(where, *CLUSTER)
        kept(before, where)
        assert adapters(where) == adapters(undisturbed)
        assert not list((where / "store" / "tmp").iterdir())  # what workers left that were killed in the middle


def _started_before(pid: int, driver: int) -> bool:
    def began(number: int) -> int:
        return int(Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[19])

    try:
        return began(pid) < began(driver)
    except OSError:
        return False
