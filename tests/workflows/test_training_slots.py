"""Agents train at the same time, each on its own slot of ranks; what an unfinished task saved is found by the next run."""

from __future__ import annotations

from pathlib import Path

import pytest

from apps import artifacts, stages
from apps.platform import processes
from apps.records import Artifact
from apps.training import policy
from tests.training.test_ranks import made_rows, processes_of, until
from workflows import sites
from workflows.driver.memoizer import StoreMemoizer
from workflows.plan import Plan
from workflows.store import Store

TRAINING = {"step_rows": 3, "micro_tokens": 30, "lora": {"r": 4, "alpha": 8}, "parallel": "ddp", "ranks": 2}


@pytest.fixture
def rows(tmp_path):
    key = "ab" + "1" * 30
    with artifacts.new(tmp_path / "store", "batch", key, {"options": {}, "inputs": {}}) as out:
        for number, agent in enumerate(("solver", "critic")):
            made_rows([1, 9, 4, 11, 6, 2, 8], seed=number).save(out / f"{agent}.npz")
    return Artifact("batch", key, str(artifacts.locate(tmp_path / "store", "batch", key)))


@pytest.mark.slow
def test_two_agents_train_at_once_each_on_its_own_ranks(tiny_model, rows, tmp_path):
    """Four ranks in two groups: neither takes the other's port, and each adapter is whole and its own."""
    site = sites.load("local", cores=2, device="cpu", training_slots=2)
    machine = {"model": str(tiny_model), "device": "cpu", "threads": 1, "launcher": site.launcher}
    memoizer, seen = StoreMemoizer(Store(tmp_path / "store")), []

    def at_work() -> bool:
        specs = (tmp_path / "store" / "tmp").glob("*/ranks/spec.json")
        seen.append(sum(len(processes_of(spec)) >= 3 for spec in specs))  # a launcher and two ranks
        return seen[-1] == 2

    with sites.running(site, tmp_path / "parsl", memoizer):
        futures = [
            stages.launch(
                stages.TRAIN,
                f"{number:02}" + "7" * 30,
                tmp_path / "store",
                {"agent": agent, "seed": 3, "training": {**TRAINING, "epochs": 60}, "objective": {"name": "grpo"}},
                machine,
                {"batch": [rows]},
            )
            for number, agent in enumerate(("solver", "critic"))
        ]
        assert until(at_work), seen
        made = [Path(future.result(timeout=240).path) for future in futures]
    processes.close()
    assert len({policy.digest_of(folder / policy.ADAPTER) for folder in made}) == 2
    assert [stages.facts_of(future.result())["steps"] for future in futures] == [180, 180]


def node(**training):
    options = {"agent": "solver", "training": {**TRAINING, **training}, "objective": {"name": "grpo"}, "seed": 3}
    return Plan().add(stages.TRAIN, {}, **options)


def test_a_task_goes_on_from_what_another_division_of_it_saved():
    """Its key holds how it is carried out, since that decides the last bits; its lineage does not."""
    plain = node()
    for how in ({"ranks": 4}, {"parallel": "zero3"}, {"micro_tokens": 99}, {"activation_checkpointing": True}):
        other = node(**how)
        assert other.key != plain.key and other.lineage == plain.lineage != ""
    for what in ({"lr": 0.5}, {"step_rows": 4}, {"dtype": "bfloat16"}):
        assert node(**what).lineage != plain.lineage
    assert Plan().add(stages.BASE, {}, agents=["solver"]).lineage == ""


def test_what_was_saved_is_gone_once_the_artifact_is_whole(tiny_model, rows, tmp_path):
    partial = tmp_path / "store" / stages.PARTIAL / ("cd" * 16)
    machine = {"model": str(tiny_model), "device": "cpu", "partial": str(partial), "checkpoint_minutes": 1e-9}
    options = {"agent": "solver", "seed": 3, "training": {**TRAINING, "parallel": "single", "ranks": 1}}
    call = {
        "stage": "train",
        "key": "12" * 16,
        "module": stages.TRAIN.module,
        "root": str(tmp_path / "store"),
        "pool": "",
    }
    artifact = stages.execute(
        **call, options={**options, "objective": {"name": "grpo"}}, machine=machine, given={"batch": [rows]}
    )
    assert (Path(artifact.path) / policy.ADAPTER).is_file() and not partial.exists()
