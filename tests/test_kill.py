"""A run that is killed at any moment and started again ends in the very adapters of one that was left in peace.

The real command with a tiny real model (tests/checkout.py).
"""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from apps import packs
from tests.checkout import Checkout, adapters, checked_out, made, told, wait_for, whole

SETTINGS = (
    "name=small", "rounds=2", "promotion.rule=always", "credit.repeats=1", "sampling.max_new_tokens=8",
    "tasks={name: arithmetic, levels: [2], train: 6, validation: 4, test: 4}",
    "rollout={tasks: 2, samples: 4, shards: 2}",
    "training={step_rows: 4, lora: {r: 2}}",
    "evaluation={tasks: 4, samples: 1, validation_tasks: 2, validation_samples: 1, shards: 1, shown_tasks: 1}",
)  # fmt: skip


def kill_at(checkout: Checkout, where: Path, more: int, delay_s: float) -> bool:
    """Starts the run and kills it `delay_s` after `more` further tasks are done; False where it ended before that."""
    goal = len(made(where)) + more
    run = checkout.start(where)
    assert wait_for(lambda: run.poll() is not None or len(made(where)) >= goal)
    time.sleep(delay_s)
    ended = run.poll() is not None
    assert not ended or run.returncode == 0, told(where)[-3000:]
    run.send_signal(signal.SIGKILL)
    run.wait()
    return not ended


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    with checked_out(tmp_path_factory.mktemp("checkout"), SETTINGS) as found:
        yield found


@pytest.fixture(scope="module")
def undisturbed(checkout: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("undisturbed")
    checkout.finish(where)
    assert len(adapters(where)) == 8  # weights and optimiser of four agents
    assert len({content for name, content in adapters(where).items() if "adapter_model" in name}) == 4
    return where


def killed_and_finished(checkout: Checkout, where: Path, moments: list[tuple[int, float]]) -> int:
    """Kills at each of the moments, then runs to the end; gives the number of kills that met a living run."""
    kills, before = 0, {}
    for more, delay_s in moments:
        kills += kill_at(checkout, where, more, delay_s)
        assert wait_for(lambda: not checkout.alive(), 60), "processes outlived their run"
        assert whole(where)
        assert before.items() <= made(where).items(), "a finished task was done again"
        before = made(where)
    checkout.finish(where)
    assert before.items() <= made(where).items(), "a finished task was done again"
    return kills


def the_same_came_of_it(where: Path, undisturbed: Path) -> None:
    assert adapters(where) == adapters(undisturbed)
    assert made(where).keys() == made(undisturbed).keys()
    assert whole(where) and not list((where / "store" / "tmp").glob("*")) and not (where / "store" / "damaged").exists()
    assert not list((where / "runs").rglob("*.part"))


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are found through /proc")
def test_a_run_killed_twice_ends_as_if_it_had_not_been(checkout, undisturbed, tmp_path):
    where = tmp_path / "killed"
    kills = killed_and_finished(checkout, where, [(20, 0.1), (12, 0.3)])  # in the first round, then in training
    assert kills == 2
    the_same_came_of_it(where, undisturbed)
    assert not checkout.alive()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are found through /proc")
def test_a_run_killed_many_times_ends_as_if_it_had_not_been(checkout, undisturbed, tmp_path):
    rng = random.Random(0)
    moments = [(rng.randint(0, 12), rng.uniform(0, 1.5)) for _ in range(6)]
    assert killed_and_finished(checkout, tmp_path / "killed", moments) >= 3
    the_same_came_of_it(tmp_path / "killed", undisturbed)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are found through /proc")
def test_a_run_that_packs_all_the_time_and_is_killed_ends_as_if_it_had_not(undisturbed, tmp_path):
    """Its sources take four results for a pack; what is packed by then is woken when the run goes on."""
    with checked_out(tmp_path / "checkout", SETTINGS) as checkout:
        file = tmp_path / "checkout" / "workflows" / "driver" / "packing.py"
        usual, here = "\nLEAST = 100 ", "\nLEAST = 4 "
        assert usual in file.read_text()
        file.write_text(file.read_text().replace(usual, here))
        where, rng = tmp_path / "killed", random.Random(7)
        moments = [(rng.randint(4, 14), rng.uniform(0, 1)) for _ in range(5)]
        assert killed_and_finished(checkout, where, moments) >= 3
    assert adapters(where) == adapters(undisturbed)
    assert len(made(where)) == len(made(undisturbed)) and len(packs.every(where / "store")) > 1
    assert not list((where / "store").glob("*/??/*/*")) and not list((where / "store" / "tmp").iterdir())
    assert not (where / "store" / "damaged").exists()


@pytest.mark.slow
def test_the_team_that_a_run_left_is_measured_again_by_its_adapters(checkout, undisturbed, tmp_path):
    """As jobs/evaluate.pbs does: nothing is trained, and the figures are those that the run ended with."""
    again = tmp_path / "again"
    checkout.finish(again, "rounds=0", f"team.adapters={undisturbed}/runs/small/adapters")
    assert not any(name.startswith(("train/", "batch/")) for name in made(again))
    figures = [
        json.loads((where / "runs" / "small" / "summary.json").read_text())["accuracy"]
        for where in (undisturbed, again)
    ]
    for mode in ("greedy", "sampled"):
        then, now = (figure[mode] for figure in figures)
        assert now["before"] == now["after"] == then["after"]
