"""What is asked of PBS and what is read of its answers, against the stand-in of tests/pbs: real processes, its own JSON."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from apps.records import MeritError
from tests.pbs.cluster import Cluster
from workflows.cluster import pbs

HEAD = """#!/bin/bash -l
#PBS -N tried
#PBS -l select=2
#PBS -l walltime=00:01:00
#PBS -l filesystems=home:flare
#PBS -q debug
#PBS -A mine
#PBS -j oe
#PBS -k doe
cd "$PBS_O_WORKDIR"
"""


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    with Cluster(tmp_path / "pbs", kill_delay=0.5) as found:
        for name in ("PATH", "PBS_STAND_IN"):
            monkeypatch.setenv(name, found.environment[name])
        monkeypatch.chdir(tmp_path)
        yield found


def script(folder: Path, body: str) -> Path:
    file = folder / "tried.pbs"
    file.write_text(HEAD + body)
    return file


def test_a_job_is_submitted_run_and_told_of(cluster, tmp_path):
    """Values with commas and blanks arrive as they are; the command line overrides directives."""
    odd = {"SETTINGS": "a={b: [1, 2]} c=x", "NAME": "say so", "EMPTY": ""}
    told = 'printf "%s\\n" "$SETTINGS" "$NAME" "[$EMPTY]" "$0" "${OTHER-none}"; sort "$PBS_NODEFILE"; exit 3\n'
    batch = pbs.PBS()
    id = batch.submit(script(tmp_path, told), odd, options=("-l", "select=1", "-N", "other"))
    assert cluster.wait(id)["Exit_status"] == 3
    assert re.fullmatch(r"\d+\.standin", id)
    output = (tmp_path / f"other.o{id.split('.')[0]}").read_text().splitlines()
    assert output[:3] == [odd["SETTINGS"], odd["NAME"], "[]"]
    assert output[3].endswith(f"jobs/{id}.SC") and output[4:] == ["none", "x1"]
    job = batch.status(id)
    assert (job.name, job.state, job.queue, job.status, job.nodes) == ("other", "finished", "debug", 3, 1)
    assert job.walltime_s == 60 and abs(job.began - time.time()) < 30 and job.ends == job.began + 60
    assert set(job.variables) == set(odd)
    assert " ".join(job.options) == (
        "-q debug -A mine -N other -l select=1 -l place=free -l walltime=00:01:00 -l filesystems=home:flare"
    )


@pytest.mark.parametrize("value", ["it's", 'say "so"', "a\\b"])
def test_values_that_qsub_spoils_are_refused(tmp_path, value):
    with pytest.raises(MeritError, match="qsub would spoil the quotation marks or backslashes in SETTINGS"):
        pbs.PBS().submit(tmp_path / "any.pbs", {"SETTINGS": value})


def test_a_job_that_is_not_known_is_none(cluster):
    assert pbs.PBS().status("77") is None
    pbs.PBS().delete("77")  # nor is it a fault to end it


def test_a_job_waits_for_another_to_end_and_is_taken_out_of_the_queue(cluster, tmp_path):
    batch = pbs.PBS()
    first = batch.submit(script(tmp_path, "sleep 60\n"), {})
    second = batch.submit(script(tmp_path, "hostname\n"), {}, after=first)
    cluster.wait(first, "R")
    assert batch.status(first).state == "running" and batch.status(second).state == "held"
    third = batch.submit(script(tmp_path, "hostname\n"), {}, after=second)
    batch.delete(third)
    assert cluster.wait(third)["Exit_status"] == 0
    batch.delete(first)
    assert cluster.wait(first)["Exit_status"] in (
        128 + 15,
        256 + 15,
    )  # of the script, or of the shell that waits for it
    assert cluster.wait(second)["Exit_status"] == 0
    batch.delete(first)  # it is over: no fault


def test_a_job_that_ignores_sigterm_is_killed_at_its_walltime_with_all_it_started(cluster, tmp_path):
    """After SIGTERM to the session `kill_delay` passes; then nothing of it is left."""
    body = "trap 'echo asked' TERM\n(trap '' TERM; while :; do sleep .1; done) &\nwhile :; do sleep .1; done\n"
    id = pbs.PBS().submit(script(tmp_path, body), {}, options=("-l", "walltime=00:00:01"))
    found = cluster.wait(id)
    assert found["Exit_status"] == -29 and found["mtime"] - found["stime"] >= 1.5
    output = (tmp_path / f"tried.o{id.split('.')[0]}").read_text()
    assert "asked" in output and "job killed: walltime 2 exceeded limit 1" in output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("-q", "dbug"), "Unknown queue"),
        (("-q", "debug", "-l", "select=3"), "Job violates queue"),
        (("-q", "debug", "-l", "walltime=02:00:00"), "Job violates queue"),
        (("-q", "prod", "-l", "select=2"), "Job rejected by all possible destinations"),
        (("-q", "small", "-l", "select=3"), "Queue not enabled"),
    ],
)
def test_what_pbs_refuses_is_told_in_its_words(cluster, tmp_path, options, message):
    with pytest.raises(MeritError, match=f"qsub refuses .*tried.pbs: qsub: {message}"):
        pbs.PBS().submit(script(tmp_path, "hostname\n"), {}, options=options)


@pytest.mark.parametrize("lacking", ["account", "select", "walltime", "filesystems"])
def test_the_stand_in_wants_what_aurora_wants(cluster, tmp_path, lacking):
    told = {"account": "-A", "select": "select", "walltime": "walltime", "filesystems": "filesystems"}[lacking]
    file = script(tmp_path, "hostname\n")
    file.write_text("".join(line for line in file.read_text().splitlines(True) if told not in line))
    with pytest.raises(MeritError, match=f"names no {lacking}"):
        pbs.PBS().submit(file, {})


def test_a_successor_is_the_same_job_once_more(cluster, tmp_path):
    """From a routing queue: it is submitted there again, since the queue that runs it takes no jobs from users."""
    told = 'echo "$LABEL $CONTINUATIONS"\nsleep 30\n'
    batch = pbs.PBS()
    options = ("-q", "prod", "-l", "select=3", "-l", "place=scatter")
    id = batch.submit(script(tmp_path, told), {"LABEL": "a, b", "CONTINUATIONS": "2"}, options=options)
    attributes = cluster.wait(id, "R")
    assert attributes["queue"] == "small"
    inside = attributes["Variable_List"] | {
        "PBS_JOBID": id,
        "PBS_NODEFILE": str(cluster.folder / "aux" / id),
        pbs.SCRIPT: str(cluster.folder / "jobs" / f"{id}.SC"),
    }
    found = pbs.around(inside)
    assert found["deadline"] == pytest.approx(attributes["stime"] + 60, abs=1)
    assert pbs.nodes(inside) == ["x1", "x2", "x3"]
    following = cluster.job(found["successor"]())
    assert following["job_state"] == "H" and following["depend"] == f"afterany:{id}"
    same = ("Job_Name", "queue", "Account_Name", "Resource_List")
    assert {name: following[name] for name in same} == {name: attributes[name] for name in same}
    assert following["Variable_List"]["LABEL"] == "a, b" and following["Variable_List"]["CONTINUATIONS"] == "1"
    assert pbs.around({**inside, "CONTINUATIONS": "0"})["successor"] is None
    assert pbs.around({**inside, pbs.SCRIPT: ""})["successor"] is None


def test_outside_of_a_job_there_is_nothing_around():
    assert pbs.around({}) == {} and pbs.nodes({}) == []


def test_what_pbs_prints_for_odd_values_is_read_all_the_same(cluster, tmp_path):
    """`inf`, `.5` and 0x1F come without quotation marks, a stray backslash as it is: no JSON, and yet all is there."""
    odd = {"A": "inf", "B": ".5", "C": "0x1F", "D": "one\\d", "E": "0012", "F": "1e3"}
    words = ("-v", ",".join(f"{name}={value}" for name, value in odd.items()), str(script(tmp_path, "sleep 30\n")))
    id = cluster.qsub(*words, folder=tmp_path)
    cluster.wait(id, "R")
    text = cluster.run("qstat", "-f", "-F", "json", id, folder=tmp_path).stdout
    with pytest.raises(json.JSONDecodeError):
        json.loads(text)
    job = pbs.read(text)
    assert set(job.variables) == set(odd) and job.walltime_s == 60 and job.state == "running"


def test_json_that_cannot_be_read_is_told_with_its_line():
    with pytest.raises(MeritError, match=r"no valid JSON .* a value in the job's environment: \]"):
        pbs.read('{\n"Jobs":{\n"1.x":{\n]\n}}}')
    assert pbs.read('{"Jobs":{}}') is None


def test_without_pbs_the_error_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MeritError, match=r"qsub: .*is this a machine with PBS\?"):
        pbs.PBS().submit(tmp_path / "any.pbs", {})
