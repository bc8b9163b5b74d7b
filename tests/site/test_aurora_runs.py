"""Whole runs on Aurora's site, hosts that are names, with real pools, ranks and jobs: as on the laptop, and nothing is left."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from apps.platform import work
from apps.training import policy
from tests import command
from tests.checkout import wait_for
from tests.pbs.cluster import Cluster
from tests.site import here, pals

pytestmark = pytest.mark.slow
SMALL = ("tasks={name: arithmetic, train: 40, validation: 20, test: 20}", "credit.name=uniform")
PLAYS = "evaluation={tasks: 4, samples: 1, validation_tasks: 4, validation_samples: 1, shown_tasks: 1, shards: 1}"
OVERLAP = (
    "rounds=2",
    "rollout={tasks: 4, samples: 4, plan: independent, overlap: 1, shards: 1}",
    "promotion.rule=always",
)
RANKS = (
    "topology.name=single",
    "sampling.max_new_tokens=8",
    "training={parallel: ddp, ranks: 2, epochs: 1, step_rows: 8}",
)


def calls(job: Path) -> list[dict]:
    """Of mpiexec."""
    return [json.loads(line) for line in (job / "mpiexec.jsonl").read_text().splitlines()]


def artifacts_of(folder: Path, stage: str) -> list[tuple[dict, work.Work]]:
    found = [json.loads(file.read_text()) for file in (folder / "store" / stage).glob("*/*/manifest.json")]
    return [(one["record"], work.of(one)) for one in found]


def working_for(mark: str) -> list[str]:
    """Processes whose environment holds `mark`."""
    found = []
    for file in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in file.read_bytes():
                found.append((file.parent / "cmdline").read_text().replace("\0", " "))
        except OSError:  # it has ended
            continue
    return found


def test_three_hosts_come_to_what_the_laptop_comes_to(tmp_path):
    here_, there = tmp_path / "here", tmp_path / "there"
    here_.mkdir()
    there.mkdir()
    job = tmp_path / "job"
    ended = command.run(
        there, *here.site_options(logs=tmp_path / "logs"), *command.SMALL, "name=a", **here.environment(job)
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert command.run(here_, "--site-option", "cores=1", *command.SMALL, "name=a").returncode == 0
    same = ("accuracy", "credit", "roles", "metrics", "validation")
    found, expected = (json.loads((f / "runs" / "a" / "summary.json").read_text()) for f in (there, here_))
    assert {name: found[name] for name in same} == {name: expected[name] for name in same}
    (call,) = calls(job)
    assert call["hosts"] == ["x2", "x3"]
    assert sorted(path.name for path in there.iterdir()) == ["runs", "store"], "the folder of the user stays clean"
    assert not (there / "runs" / "a" / "parsl").exists() and not working_for(str(job))


def test_a_round_is_played_while_the_last_one_trains_on_ranks_of_its_own_nodes(tiny_model, tmp_path):
    job = tmp_path / "job"
    words = (*SMALL, PLAYS, *OVERLAP, *RANKS, f"model={tiny_model}", "name=a")
    ended = command.run(
        tmp_path,
        *here.site_options(slot_nodes=2, training_nodes=2, logs=tmp_path / "logs"),
        *words,
        **here.environment(job),
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    pool, *ranks = calls(job)
    assert pool["hosts"] == ["x3"] and [call["hosts"] for call in ranks] == [["x1", "x2"]] * 2
    first, second = sorted((done for _, done in artifacts_of(tmp_path, "train")), key=lambda done: done.began)
    plays = {record["options"]["seed"]: done for record, done in artifacts_of(tmp_path, "rollout")}
    assert plays["0/train/2"].ended < first.ended < second.began  # it was not waited for, but for its weights
    folder = tmp_path / "runs" / "a"
    rounds = json.loads((folder / "summary.json").read_text())["training"]
    assert [row["off_policy"] for row in rounds] == [[], ["solver"]]
    assert "Round 2:" in (folder / "report.html").read_text() and "(off-policy)" in (folder / "report.html").read_text()
    assert (folder / "adapters" / "solver" / policy.ADAPTER).is_file() and not working_for(str(job))
    assert Path(f"/tmp/merit-{os.getuid()}/ranks/1.log").is_file()


def test_a_node_that_plays_is_lent_to_training_in_each_round_and_plays_again(tiny_model, tmp_path):
    """Three hosts, a slot of two: the driver's, which never plays, and one that does."""
    job = tmp_path / "job"
    plays = OVERLAP[1].replace("shards: 1", "shards: 4")
    words = (*SMALL, PLAYS, OVERLAP[0], plays, OVERLAP[2], *RANKS, f"model={tiny_model}", "name=a")
    ended = command.run(
        tmp_path, *here.site_options(slot_nodes=2, logs=tmp_path / "logs"), *words, **here.environment(job)
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    pool, *ranks = calls(job)
    assert pool["hosts"] == ["x2", "x3"] and [call["hosts"][0] for call in ranks] == ["x1", "x1"]
    borrowed = [call["hosts"][1] for call in ranks]
    trained = sorted((done for _, done in artifacts_of(tmp_path, "train")), key=lambda done: done.began)
    log = (tmp_path / "runs" / "a" / "log.txt").read_text()
    for host, train in zip(borrowed, trained, strict=True):
        assert host in ("x2", "x3") and f"1 node lent to training: {host}" in log
        if pals.named():  # else all hosts bear this machine's name
            beside = [done for stage in ("rollout", "replay") for _, done in artifacts_of(tmp_path, stage)]
            assert not [d for d in beside if d.host == host and d.began < train.ended and d.ended > train.began]
    assert log.count("1 node back: ") == 2
    assert not working_for(str(job))


def test_a_node_that_dies_and_takes_the_launch_of_all_pools_with_it_is_left_out(tmp_path):
    """PALS may end a whole launch when one of its nodes does; no other comes about with that node."""
    job, log = tmp_path / "job", tmp_path / "runs" / "a" / "log.txt"
    shell = {**here.environment(job), "MERIT_MPIEXEC": str(job / "mpiexec")}
    words = (*here.site_options(logs=tmp_path / "logs"), *command.SMALL, "rounds=40", "name=a")
    run = command.start(tmp_path, *words, **shell)
    try:
        assert wait_for(lambda: log.is_file() and "round 1/40: grade" in log.read_text(), 120)
        (job / "down").write_text("x3\n")
        (launch,) = launches_of(str(job))
        os.kill(launch, signal.SIGKILL)
        told, _ = run.communicate(timeout=240)
    finally:
        run.kill()
    assert run.returncode == 0, told
    pools = [call["hosts"] for call in calls(job) if "/usr/bin/sh" in call["words"]]
    assert pools == [["x2", "x3"], ["x2"]]
    assert not working_for(str(job))


def launches_of(mark: str) -> list[int]:
    """The launches of worker pools in a job of which the environment holds `mark`."""
    found = []
    for file in Path("/proc").glob("[0-9]*/environ"):
        try:
            words = (file.parent / "cmdline").read_bytes()
            if mark.encode() in file.read_bytes() and b"mpiexec" in words.split(b"\0")[0] and b"cmd_" in words:
                found.append(int(file.parent.name))
        except OSError:
            continue
    return found


def test_from_a_login_node_blocks_come_as_jobs_and_go(tmp_path):
    """One run through PBS: the pool of inference is a job of two nodes, and none is left."""
    job = tmp_path / "job"
    shell = {name: value for name, value in here.environment(job).items() if name not in ("PATH", "PBS_NODEFILE")}
    shell["MERIT_MPIEXEC"] = str(job / "mpiexec")
    profile = "export " + " ".join(f"{name}='{value}'" for name, value in shell.items())
    with Cluster(tmp_path / "pbs", ("x1", "x2", "x3"), profile=profile) as pbs:
        options = here.site_options(
            account="mine", queue="capacity", nodes=2, walltime="00:30:00", logs=tmp_path / "logs"
        )
        words = (*options, *command.SMALL, "name=a")
        ended = pbs.run(*command.COMMAND, *words, folder=tmp_path, **shell, OMP_NUM_THREADS="1", COLUMNS="200")
        assert ended.returncode == 0, ended.stdout + ended.stderr
        (only,) = (pbs.job(name) for name in pbs.jobs())
        assert (only["queue"], only["Account_Name"], int(only["Resource_List"]["nodect"])) == ("capacity", "mine", 2)
        assert pbs.wait(pbs.jobs()[0])["job_state"] == "F"
        assert len(calls(job)) == 1 and len(calls(job)[0]["hosts"]) == 2
    assert json.loads((tmp_path / "runs" / "a" / "summary.json").read_text())["state"] == "finished"
