"""`init`: what it asks, what it writes, what it refuses; and that what it wrote runs when it is submitted."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import typer
import yaml

from tests import command
from tests.command import SMALL, run
from tests.pbs.cluster import Cluster
from workflows import run as command_line
from workflows.commands import drafts, first

SITE = '''"""This machine, with a cluster's queues."""
import dataclasses
from pydantic import Field
from apps import records
from workflows import sites
from workflows.cluster import queues
QUEUES = (queues.Queue("debug", 1, 2, 1, running=1), queues.Queue("large", 8, 64, 12, running=9))
class Options(records.Options):
    """A job."""
    account: str = Field("", description="the project")
    queue: str = Field("debug", description="debug or large")
    nodes: int = Field(1, ge=1, description="of a job")
    walltime: str = Field("01:00:00", description="HH:MM:SS")
    filesystems: str = Field("home:flare", description="that it needs")
def site(options):
    queues.check(QUEUES, options.queue, options.nodes, options.walltime)
    return dataclasses.replace(sites.load("local", cores=1, device="cpu"), inference_slots=12 * options.nodes)
'''
JOB = ("--yes", "--account", "mine")


def initialise(folder: Path, monkeypatch, *words: str) -> int:
    monkeypatch.chdir(folder)
    return command_line.main(["init", *words])


def directives(file: Path) -> dict[str, str]:
    found = re.findall(r"^#PBS (-[A-Za-z]) (?:(\w+)=)?(.*)$", file.read_text(), re.M)
    return {name or letter: value for letter, name, value in found}


def test_it_writes_a_configuration_and_a_job_for_aurora(tmp_path, monkeypatch, capsys):
    asked = (
        "--queue",
        "debug-scaling",
        "--nodes",
        "20",
        "--walltime",
        "00:30:00",
        "--name",
        "big",
        "--continuations",
        "2",
    )
    assert initialise(tmp_path, monkeypatch, *JOB, *asked, "rounds=7") == 0
    told = capsys.readouterr().out
    found = directives(tmp_path / "big.pbs")
    wanted = {
        "-N": "big",
        "-A": "mine",
        "-q": "debug-scaling",
        "select": "20",
        "walltime": "00:30:00",
        "filesystems": "home:flare",
    }
    assert wanted.items() <= found.items() and found["place"] == "scatter"
    settings = yaml.safe_load((tmp_path / "big.yaml").read_text())
    assert settings["rounds"] == 7 and settings["model"] == "embedded"
    assert settings["rollout"]["shards"] == settings["rollout"]["tasks"] == 20 * 12  # a shard for every tile
    assert "at most 10.0 node-hours a job (20 nodes, 0.5 h), 30.0 with all 2 continuations" in told
    assert "What the run itself takes is not known" in told and "Next: qsub big.pbs" in told
    planned = command_line.main(["--config", "big.yaml", "rollout.tasks=4", "rollout.shards=2", "--dry-run"])
    assert planned == 0  # it can be read back


def test_with_the_times_of_stages_it_says_what_the_run_takes_and_on_what_grounds(tmp_path, monkeypatch, capsys):
    words = (
        "--stage-times",
        str(command.ROOT / "docs" / "stage_times.yaml"),
        "--nodes",
        "2",
        "--name",
        "est",
        "rounds=2",
    )
    assert initialise(tmp_path, monkeypatch, *JOB, *words) == 0
    assert re.search(
        r"^estimate: [\d.,]+ h, [\d,]+ node-hours, \d+ jobs; simulated, from stage times that are assumed,",
        capsys.readouterr().out,
        re.M,
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--queue", "capacity", "--nodes", "17"),
            r"there is no such job \(1 to 16 nodes for up to 168 h\); the nearest .*nodes=16",
        ),
        (("--queue", "debgu"), r"queue: there is no 'debgu'; did you mean 'debug'\?"),
        (("--walltime", "two hours"), r"walltime=two hours: HH:MM:SS is expected"),
        (("--model", "nowhere"), r"model=nowhere: there is no Hugging Face model folder"),
        (("--name", "my run"), r"name=my run: letters, digits"),
        (("roundz=3",), r"there is no 'roundz'; did you mean 'rounds'\?"),
        (("--site", "auroa"), r"site: there is no 'auroa'; did you mean 'aurora'\?"),
    ],
)
def test_what_the_machine_does_not_have_is_refused_and_nothing_is_written(
    tmp_path, monkeypatch, capsys, words, message
):
    assert initialise(tmp_path, monkeypatch, *JOB, *words) == 2
    assert re.search(message, capsys.readouterr().err) and not list(tmp_path.iterdir())


def test_a_project_has_no_default_and_files_are_not_overwritten(tmp_path, monkeypatch, capsys):
    assert initialise(tmp_path, monkeypatch, "--yes") == 2
    assert "project that the job is charged to: there is no default" in capsys.readouterr().err
    (tmp_path / "first.yaml").write_text("mine")
    assert initialise(tmp_path, monkeypatch, *JOB) == 2
    assert "first.yaml exist: choose another --name, or --force" in capsys.readouterr().err
    assert initialise(tmp_path, monkeypatch, *JOB, "--force") == 0


def test_who_is_asked_is_asked_again_until_the_job_is_one_that_there_is(tmp_path, monkeypatch, capsys):
    """Answers are kept as defaults; a blank is one of those."""
    answers = iter(
        [
            "asked",
            "mine",
            "capacity",
            "17",
            "01:00:00",
            "home:flare",
            "mine",
            "capacity",
            "16",
            "02:00:00",
            "home:flare",
            "embedded",
        ]
    )
    shown = []

    def prompt(what: str, default: str | None = None) -> str:
        shown.append((what, default))
        return next(answers)

    monkeypatch.setattr(typer, "prompt", prompt)
    monkeypatch.setattr("sys.stdin", type("Terminal", (), {"isatty": lambda self: True})())
    assert initialise(tmp_path, monkeypatch) == 0
    assert "the nearest that there are" in capsys.readouterr().err
    assert (first.ASKED["nodes"], "17") in shown
    assert directives(tmp_path / "asked.pbs")["select"] == "16"


def test_a_site_without_jobs_gets_a_configuration_alone(tmp_path, monkeypatch, capsys):
    assert initialise(tmp_path, monkeypatch, "--yes", "--site", "local") == 0
    assert [file.name for file in tmp_path.iterdir()] == ["first.yaml"]
    assert "go on with: python workflows/run.py --site local --config first.yaml" in capsys.readouterr().out


def test_the_job_is_the_pipelines_but_for_its_own_lines():
    asked = {"account": "a", "queue": "q", "nodes": "3", "walltime": "00:10:00", "filesystems": "f"}
    ours, theirs = drafts.job_text("n", "s", asked, 4).splitlines(), drafts.JOB.read_text().splitlines()
    assert len(set(theirs) - set(ours)) == 6 and len(set(ours) - set(theirs)) <= 13
    assert 'export CONTINUATIONS="${CONTINUATIONS:-4}"' in ours and 'export SITE="${SITE:-s}"' in ours


@pytest.mark.slow
def test_what_it_wrote_runs_when_it_is_submitted(tmp_path):
    """As a user goes: init, qsub, status, on a site of one's own by path."""
    user = tmp_path / "user"
    user.mkdir()
    (user / "config.py").write_text(SITE)
    words = [f"{key}={value}" for key, value in (word.split("=", 1) for word in SMALL)]
    done = run(user, "init", "--site", f"{user}/config.py", "--account", "mine", "--yes", *words, "rollout.shards=2")
    assert done.returncode == 0, done.stderr
    with Cluster(tmp_path / "pbs") as pbs:
        job = pbs.qsub("first.pbs", folder=user)
        assert pbs.wait(job)["Exit_status"] == 0, (user / f"first.o{job.split('.')[0]}").read_text()
        told = pbs.run(*command.COMMAND, "status", "first", folder=user).stdout
    assert "first: finished" in told and f"{job}: finished in debug, exit status 0" in told
    assert json.loads((user / "runs" / "first" / "environment.json").read_text())["site"] == f"{user}/config.py"
