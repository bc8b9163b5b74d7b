"""The job scripts as they are, on the stand-in for PBS: what a user submits, what comes of it, and what a walltime does."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

import pytest

from tests import command
from tests.pbs.cluster import Cluster

JOBS = sorted((command.ROOT / "jobs").glob("*.pbs"))
SMALL = (
    "engine.name=scripted rounds=1 tasks.train=40 tasks.validation=20 tasks.test=20 rollout.tasks=4 rollout.samples=4 "
    + ("evaluation.tasks=12 evaluation.samples=2 evaluation.validation_tasks=8 evaluation.shown_tasks=2")
)
FIRST = ("-q", "debug", "-l", "select=1", "-A", "mine")
SITES = {  # the driver's threads, and workers of Parsl's HighThroughputExecutors
    "local": {"SITE": "local", "SITE_OPTIONS": "cores=1"},
    "htex": {"SITE": str(command.ROOT / "tests/survival/site_htex.py"), "SITE_OPTIONS": "threads=network workers=1"},
}
STARTS = {"local": 12, "htex": 18}  # a job's time in those of a process: there are many to be started first

SLOW = '''"""Grades as the family does, and takes as many seconds for it as a file says."""
import time
from pathlib import Path
from apps import records
from apps.reward import exact_number
class Options(records.Options):
    """Nothing."""
def verify(task, text, options):
    slow = Path(__file__).with_name("slow")
    time.sleep(float(slow.read_text()) if slow.exists() else 0)
    return exact_number.verify(task, text, exact_number.Options())
def check_gold(task, options):
    """Any answer will do."""
'''

OBJECTIVE = '''"""Supervised fine-tuning that takes its time for each batch as long as a file says so."""
import time
from pathlib import Path
from apps.training.objectives import sft
from apps.training.objectives.sft import NEEDS, Options
def loss(batch, options):
    if Path(__file__).with_name("slow").exists():
        time.sleep(2)
    return sft.loss(batch, options)
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


def artifacts(folder: Path, store: str = "store") -> dict[str, int]:
    """Every finished result, and when it was made."""
    found = (folder / store).glob("*/??/*/manifest.json")
    return {f"{f.parts[-4]}/{f.parts[-2]}": f.stat().st_mtime_ns for f in found}


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


def walltime(margin_s: int, starts: int = 12) -> tuple[str, str]:
    """The option for a job that has some seconds to work, on a busy machine too: as long as the command takes to start so often."""
    began = time.monotonic()
    assert command.run(Path.cwd(), *command.SMALL, "--dry-run").returncode == 0
    return "-l", f"walltime={2 * margin_s + starts * round(time.monotonic() - began + 0.5)}"


def slowly(folder: Path, limit: tuple[str, str] = ("-l", "walltime=8")) -> None:
    """A verifier in `slow.py` that takes a fiftieth of a job's time for an answer while there is a file `slow`.

    SMALL has 130 of them, of which 66 come before any credit is given.
    """
    (folder / "slow.py").write_text(SLOW)
    (folder / "slow").write_text(str(int(limit[1].partition("=")[2]) / 50))


def gone_on_with(cluster: Cluster, folder: Path, partly: str = "", **cut: str) -> list[str]:
    """Waits for one job after the other until the run is finished, or has saved what `partly` finds; all of them.

    On a machine that has become busier a job may end before it has made anything. Then it has no successor, and is submitted
    again with more time, as it tells the user to.
    """
    while not (any(folder.glob(partly)) if partly else summary(folder, cut["NAME"])["state"] == "finished"):
        last = cluster.jobs()[-1]
        found = cluster.wait(last)
        assert found["Exit_status"] in (0, 75), output(folder, last)
        if found["Exit_status"] == 75 and cluster.jobs()[-1] == last:
            assert "Nothing was finished in this job" in output(folder, last), output(folder, last)
            submit(cluster, folder, "pipeline.pbs", "-l", "walltime=600", **cut)
    return cluster.jobs()


@pytest.mark.slow
@pytest.mark.parametrize("site", SITES)
def test_a_run_that_a_walltime_cuts_short_is_gone_on_with_and_ends_as_if_it_had_not_been(cluster, folder, site):
    """One job after another until it is finished; what they make together is what an undisturbed run makes, and once."""
    limit = walltime(8, STARTS[site])
    slowly(folder, limit)
    words = f"{SMALL} rounds=2 evaluation.shards=3 verifier.name={folder}/slow.py"
    cut = {**SITES[site], "NAME": "cut", "SETTINGS": words, "CONTINUATIONS": "9"}
    cut["SITE_OPTIONS"] += " margin_s=8"
    first = submit(cluster, folder, "pipeline.pbs", *limit, **cut)
    assert cluster.wait(first)["Exit_status"] == 75, output(folder, first)
    second, told = cluster.jobs()[-1], output(folder, first)
    assert re.search(rf"the job ends in 0:\d\d; what is finished is kept; the run goes on in job {second}", told)
    assert "Traceback" not in told and " failed (" not in told
    assert cluster.job(second)["depend"] == f"afterany:{first}"
    assert cluster.job(second)["Resource_List"] == cluster.job(first)["Resource_List"]
    assert cluster.job(second)["Variable_List"]["CONTINUATIONS"] == "8"
    kept = artifacts(folder)
    (folder / "slow").unlink()
    jobs = gone_on_with(cluster, folder, **cut)
    assert cluster.job(jobs[-1])["Exit_status"] == 0
    assert (folder / "runs" / "cut" / "log.txt").read_text().count(" begins: ") == len(jobs)
    assert {artifact: when for artifact, when in artifacts(folder).items() if artifact in kept} == kept
    whole = submit(cluster, folder, "pipeline.pbs", NAME="cut", SETTINGS=f"{words} store=undisturbed runs=others")
    assert cluster.wait(whole)["Exit_status"] == 0, output(folder, whole)
    assert artifacts(folder).keys() == artifacts(folder, "undisturbed").keys()
    assert figures(folder, "runs") == figures(folder, "others")


def figures(folder: Path, runs: str) -> dict:
    told = json.loads((folder / runs / "cut" / "summary.json").read_text())
    return {name: told[name] for name in ("accuracy", "credit", "roles", "metrics", "validation")}


@pytest.mark.slow
def test_the_last_of_the_jobs_that_may_go_on_submits_no_other_and_says_so(cluster, folder):
    """One job may follow the first; what both of them have made is there when the user submits once more."""
    limit = walltime(8, 18)
    slowly(folder, limit)
    words = {"NAME": "cut", "SETTINGS": f"{SMALL} verifier.name={folder}/slow.py", "SITE_OPTIONS": "cores=1 margin_s=8"}
    first = submit(cluster, folder, "pipeline.pbs", *limit, **words, CONTINUATIONS="1")
    assert cluster.wait(first)["Exit_status"] == 75, output(folder, first)
    made, second = artifacts(folder), cluster.jobs()[-1]
    assert cluster.job(second)["Variable_List"]["CONTINUATIONS"] == "0"
    assert cluster.wait(second)["Exit_status"] == 75 and cluster.jobs() == [first, second], output(folder, second)
    last = "No successor was submitted: this job is the last (CONTINUATIONS of qsub -v)"
    for told in (output(folder, second), (folder / "runs" / "cut" / "log.txt").read_text()):
        (line,) = [line for line in told.splitlines() if last in line]
        assert re.search(r"the job ends in 0:\d\d; what is finished is kept\. No successor", line)
    found = summary(folder, "cut")
    assert found["state"] == "out of time" and found["error"].endswith(last)
    assert re.search("^run +cut: out of time$", ask(cluster, folder, "status"), re.M)
    kept = artifacts(folder)
    assert made.items() < kept.items()
    (folder / "slow").unlink()
    again = submit(cluster, folder, "pipeline.pbs", **words)
    assert cluster.wait(again)["Exit_status"] == 0 and cluster.jobs()[-1] == again, output(folder, again)
    assert summary(folder, "cut")["state"] == "finished" and kept.items() < artifacts(folder).items()


@pytest.mark.slow
def test_qdel_in_mid_run_keeps_what_is_done_and_nobody_goes_on(cluster, folder):
    """And so does `stop`, from a machine that is not the driver's."""
    slowly(folder)
    words = {"NAME": "ended", "SETTINGS": f"{SMALL} verifier.name={folder}/slow.py", "SITE_OPTIONS": "cores=1"}
    for end in ("qdel", "stop"):
        job = submit(cluster, folder, "pipeline.pbs", **words, CONTINUATIONS="5")
        log = folder / "runs" / "ended" / "log.txt"
        while not (log.is_file() and f"job {job}" in log.read_text() and artifacts(folder)):
            time.sleep(0.05)
        assert re.search(rf"^job +{job}: running in debug, 0:\d\d of 1.0 h left$", ask(cluster, folder, "status"), re.M)
        if end == "qdel":
            assert cluster.run("qdel", job, folder=folder).returncode == 0
            cluster.wait(job)
        else:
            lock = folder / "runs" / "ended" / ".lock"
            lock.write_text(lock.read_text().replace(f'"{os.uname().nodename}"', '"x9"'))
            assert f"job {job}: deleted" in ask(cluster, folder, "stop")
        assert cluster.job(job)["job_state"] == "F" and cluster.jobs()[-1] == job
        assert re.search("^run +ended: (stopped|killed)$", ask(cluster, folder, "status"), re.M)


def ask(cluster: Cluster, folder: Path, *words: str) -> str:
    """The command, as the user gives it on the login node."""
    done = cluster.run(*command.COMMAND, *words, folder=folder)
    return done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("site", SITES)
def test_training_that_a_walltime_cuts_short_is_gone_on_with_and_gives_the_same_adapter(cluster, folder, site):
    """It has saved its steps when the job's time was up; the next job does the rest, bit for bit."""
    (folder / "slow.py").write_text(OBJECTIVE)
    (folder / "slow").touch()
    spoken = [
        [{"role": "user", "content": f"{n} plus {n}?"}, {"role": "assistant", "content": f"ANSWER: {2 * n}"}]
        for n in range(140)
    ]
    (folder / "chats.jsonl").write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in spoken))
    words = f"data.path=chats.jsonl objective.name={folder}/slow.py training.step_rows=4 training.epochs=2 training.lora.r=2"
    cut = {**SITES[site], "WORKFLOW": "sft", "NAME": "cut", "SETTINGS": words, "CONTINUATIONS": "9"}
    cut["SITE_OPTIONS"] += " margin_s=10"
    first = submit(cluster, folder, "pipeline.pbs", *walltime(10, STARTS[site]), **cut)
    assert cluster.wait(first)["Exit_status"] == 75, output(folder, first)
    gone_on_with(cluster, folder, "store/partial/*/step-*", **cut)  # at once, unless the machine became busy
    (folder / "slow").unlink()
    jobs = gone_on_with(cluster, folder, **cut)
    assert not list((folder / "store" / "partial").glob("*/step-*")) and len(jobs) >= 2
    whole = submit(
        cluster, folder, "pipeline.pbs", WORKFLOW="sft", NAME="cut", SETTINGS=f"{words} store=other runs=others"
    )
    assert cluster.wait(whole)["Exit_status"] == 0, output(folder, whole)
    cut_, whole_ = (sorted((folder / runs / "cut" / "adapter").glob("*.safetensors")) for runs in ("runs", "others"))
    assert cut_ and [f.read_bytes() for f in cut_] == [f.read_bytes() for f in whole_]


@pytest.mark.slow
def test_a_study_and_an_evaluation_are_jobs_too(cluster, folder):
    (folder / "study.yaml").write_text(
        "workflow: post_train\nlist: {one: {credit.name: local}, two: {credit.name: uniform}}\n"
    )
    study = submit(cluster, folder, "sweep.pbs", MANIFEST="study.yaml", SETTINGS=SMALL, SITE_OPTIONS="cores=1")
    assert cluster.wait(study)["Exit_status"] == 0, output(folder, study)
    assert (folder / "runs" / "study" / "sweep.html").is_file()
    assert (folder / "runs" / "study" / "jobs.txt").read_text().split()[2:] == [
        study,
        "began",
    ]  # or status disbelieves its driver
    again = submit(cluster, folder, "evaluate.pbs", RUN="study/one", SETTINGS="evaluation.tasks=16")
    assert cluster.wait(again)["Exit_status"] == 0, output(folder, again)
    found = summary(folder, "evaluate-one")
    assert found["state"] == "finished" and found["accuracy"]["greedy"]["n"] == 16


def test_a_job_without_the_checkout_says_what_it_lacks(cluster, folder):
    job = submit(cluster, folder, "debug.pbs", MERIT=str(folder))
    assert cluster.wait(job)["Exit_status"] == 2
    assert "submit from the checkout, or with qsub -v MERIT=CHECKOUT" in output(folder, job)
