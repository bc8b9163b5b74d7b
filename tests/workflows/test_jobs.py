"""The job scripts as they are, on the stand-in for PBS: what a user submits, what comes of it, and what a walltime does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests import command
from tests.pbs.cluster import Cluster

JOBS = sorted((command.ROOT / "jobs").glob("*.pbs"))
SMALL = " ".join(f"'{word}'" for word in command.SMALL)  # blanks part the words of SETTINGS
FIRST = ("-q", "debug", "-l", "select=1", "-A", "mine")
LOCAL = f"SITE=local,MERIT={command.ROOT}"

SLOW = '''"""Grades as the family does, and takes its time for it."""
import time
from apps import records
from apps.reward import exact_number
class Options(records.Options):
    """Nothing."""
def verify(task, text, options):
    time.sleep(0.02)
    return exact_number.verify(task, text, exact_number.Options())
def check_gold(task, options):
    """Any answer will do."""
'''


@pytest.fixture
def cluster(tmp_path):
    with Cluster(tmp_path / "pbs", kill_delay=5) as found:
        yield found


@pytest.fixture
def folder(tmp_path) -> Path:
    """Where a user submits from."""
    (tmp_path / "user").mkdir()
    return tmp_path / "user"


def submit(cluster: Cluster, folder: Path, script: str, *words: str, **options: str) -> str:
    """With the options by name alone, whose values may hold commas."""
    options = {"SITE": "local", "MERIT": str(command.ROOT), **options}
    done = cluster.run(
        "qsub", *FIRST, *words, "-v", ",".join(options), str(command.ROOT / "jobs" / script), folder=folder, **options
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def output(folder: Path, job: str) -> str:
    return "".join(f.read_text() for f in folder.glob(f"*.o{job.split('.')[0]}"))


def summary(folder: Path, name: str) -> dict:
    return json.loads((folder / "runs" / name / "summary.json").read_text())


def artifacts(folder: Path) -> set[str]:
    return {"/".join(f.parts[-4:-1]) for f in (folder / "store").glob("*/??/*/manifest.json")}


@pytest.mark.parametrize("script", JOBS, ids=lambda file: file.stem)
def test_directives_are_those_that_aurora_wants_and_options_are_told(script):
    text = script.read_text()
    assert text.startswith("#!/bin/bash -l\n")
    for directive in (
        "-A ",
        "-q ",
        "-l select=",
        "-l walltime=",
        "-l filesystems=",
        "-l place=scatter",
        "-k doe",
        "-j oe",
    ):
        assert f"\n#PBS {directive}" in text
    told = set(re.findall(r"^#   ([A-Z_]+)(?:, ([A-Z_]+))?  ", text, re.M))
    told = {name for names in told for name in names if name}
    own = {"PBS_O_WORKDIR", "PWD", "MERIT_JOB_SCRIPT"}
    used = set(re.findall(r"\$\{?([A-Z][A-Z_]+)", "".join(line for line in text.splitlines(True) if line[0] != "#")))
    assert used - own <= told and len(text.splitlines()) <= 50
    assert "-V" not in text.split()


def test_a_job_runs_a_workflow_on_the_first_node_and_leaves_its_log_and_output(cluster, folder):
    job = submit(cluster, folder, "pipeline.pbs", NAME="mine", SETTINGS=SMALL, SITE_OPTIONS="cores=1")
    assert cluster.wait(job)["Exit_status"] == 0, output(folder, job)
    assert summary(folder, "mine")["state"] == "finished"
    kept = json.loads((folder / "runs" / "mine" / "environment.json").read_text())
    assert (kept["site"], kept["site_options"], kept["job"]) == ("local", ["cores=1"], job)
    assert "The whole story" in output(folder, job)
    log = (folder / "runs" / "mine" / "log.txt").read_text()
    assert re.match(rf"[\d-]+ [\d:]+ begins: process \d+ on \S+, job {job}\n", log) and log.endswith(" finished\n")
    assert re.fullmatch(rf"[\d-]+ [\d:]+ {job} began\n", (folder / "runs" / "mine" / "jobs.txt").read_text())
    assert cluster.jobs() == [job]  # it was finished: nobody goes on


def test_a_run_that_a_walltime_cuts_short_is_gone_on_with_and_ends_as_if_it_had_not_been(cluster, folder, tmp_path):
    """One job after another until it is finished; what they make together is what an undisturbed run makes, once."""
    (folder / "slow.py").write_text(SLOW)
    slow = f"{SMALL} rounds=2 rollout.shards=4 verifier.name={folder}/slow.py"
    whole = {"NAME": "whole", "SETTINGS": f"{slow} store=undisturbed"}
    cut = {"NAME": "cut", "SETTINGS": slow, "SITE_OPTIONS": "cores=1 margin_s=5", "CONTINUATIONS": "9"}
    first = submit(cluster, folder, "pipeline.pbs", "-l", "walltime=00:00:16", **cut)
    assert cluster.wait(first)["Exit_status"] == 75, output(folder, first)
    assert "Stopped: the job ends in 0:0" in output(folder, first) and "Traceback" not in output(folder, first)
    second = cluster.jobs()[-1]
    assert f"the run goes on in job {second}" in (folder / "runs" / "cut" / "log.txt").read_text()
    assert f"goes on in job {second}" in json.dumps(summary(folder, "cut")) or cluster.job(second)["job_state"] != "H"
    kept = artifacts(folder)
    while (state := summary(folder, "cut")["state"]) != "finished":
        job = cluster.jobs()[-1]
        cluster.wait(job)
        assert kept <= artifacts(folder) and state
    jobs = cluster.jobs()
    assert 2 <= len(jobs) <= 10 and cluster.job(jobs[-1])["Exit_status"] == 0
    assert [cluster.job(job)["Exit_status"] for job in jobs[:-1]] == [75] * (len(jobs) - 1)
    assert all(
        cluster.job(job)["depend"] == f"afterany:{before}" for before, job in zip(jobs[:-1], jobs[1:], strict=True)
    )
    assert cluster.wait(submit(cluster, folder, "pipeline.pbs", **whole))["Exit_status"] == 0
    made = {"/".join(f.parts[-4:-1]) for f in (folder / "undisturbed").glob("*/??/*/manifest.json")}
    assert artifacts(folder) == made
