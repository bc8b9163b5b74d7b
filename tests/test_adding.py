"""The worked examples of docs/adding.md do what the page says: each file is written, each command is run."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from tests import command
from tests.checkout import wait_for
from tests.site import slurm

PAGE = (command.ROOT / "docs" / "adding.md").read_text(encoding="utf-8")
FILE = re.compile(r"^```\w+ file=(\S+)\n(.*?)^```$", re.M | re.S)
SHELL = re.compile(r"^```sh\n(.*?)^```$", re.M | re.S)
SECTIONS = {title: text for title, text in re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S)}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    """A folder with every file of the page."""
    folder = tmp_path_factory.mktemp("adding")
    for name, text in FILE.findall(PAGE):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_the_page_has_an_example_of_each_kind():
    assert list(SECTIONS) == ["A credit method", "A verifier", "A topology", "A task family", "A site", "A cluster"]
    assert all(len(FILE.findall(text)) == len(SHELL.findall(text)) == 1 for text in SECTIONS.values())


@pytest.mark.parametrize(
    "title", [pytest.param(title, marks=[pytest.mark.slow] * (title == "A cluster")) for title in SECTIONS]
)
def test_an_example_runs(workplace, title):
    words = shlex.split(SHELL.search(SECTIONS[title])[1].replace("\\\n", " "))
    assert words[:2] == ["python", "workflows/run.py"]
    around = slurm.environment(workplace / "slurm") if title == "A cluster" else {}
    ended = command.run(workplace, *words[2:], **around)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    name = next(word.removeprefix("name=") for word in words if word.startswith("name="))
    folder = workplace / "runs" / name
    assert json.loads((folder / "summary.json").read_text())["state"] == "finished"
    CHECKS[title](folder, workplace)


def check_credit(folder: Path, workplace: Path) -> None:
    """Without its solver the base model speaks, and so each agent that spoke was worth something between -1 and 1."""
    assert yaml.safe_load((folder / "config.yaml").read_text())["credit"]["repeats"] == 3
    credit = json.loads((folder / "summary.json").read_text())["credit"]
    assert set(credit) == {"solver", "critic", "reviser", "verifier"}
    assert any(role["before"]["mean"] for role in credit.values())
    told = command.run(workplace, "why", "credit", "arithmetic")
    assert told.returncode == 0 and "replays" in told.stdout, told.stderr


def check_verifier(folder: Path, workplace: Path) -> None:
    stages = {row["stage"] for row in json.loads((folder / "artifacts.json").read_text())}
    assert "grade" in stages
    (task, *_) = (workplace / "store" / "grade").rglob("manifest.json")
    graded = [
        json.loads(f.read_text())["record"]["options"]["verifier"]
        for f in (workplace / "store" / "grade").rglob("manifest.json")
    ]
    assert {"name": "research/last_number.py"} in graded and task


def check_topology(folder: Path, workplace: Path) -> None:
    summary = json.loads((folder / "summary.json").read_text())
    assert set(summary["credit"]) == {"first", "second", "judge"}
    assert summary["metrics"]["sampled"]["before"]["turns"] == 3


def check_family(folder: Path, workplace: Path) -> None:
    told = command.run(workplace, "trace", "family", "sum-")
    assert "What is" in told.stdout, told.stderr


def check_site(folder: Path, workplace: Path) -> None:
    assert "--site research/quiet" in json.loads((folder / "environment.json").read_text())["command"]


def check_cluster(folder: Path, workplace: Path) -> None:
    """Nodes played in a job that was submitted, and was ended; no rank was wanted, and so no job for training."""
    (job,) = (workplace / "slurm").glob("*.sbatch")
    script = job.read_text()
    assert "#SBATCH --nodes=2" in script and "#SBATCH --account=me" in script and "#SBATCH --partition=gpu" in script
    assert "srun --ntasks 2" in script and "parsl.inference" in script
    assert wait_for(lambda: not slurm.running(workplace / "slurm"), 30)  # scancel does not wait


CHECKS = {
    "A credit method": check_credit,
    "A verifier": check_verifier,
    "A topology": check_topology,
    "A task family": check_family,
    "A site": check_site,
    "A cluster": check_cluster,
}


@pytest.mark.parametrize("kind", ["by path", "by dotted name"])
def test_a_users_file_is_found(workplace, kind):
    name = {"by path": "research/without_me.py", "by dotted name": "research.without_me"}[kind]
    ended = command.run(workplace, *command.SMALL, f"credit.name={name}", "--dry-run", PYTHONPATH=str(workplace))
    assert ended.returncode == 0 and "replay" in ended.stdout, ended.stderr


def test_an_edit_of_ones_own_method_runs_credit_again_and_no_rollout(workplace, tmp_path):
    """The file is part of the keys of what it decides, and of nothing else."""
    for name in ("small.yaml", "research/without_me.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text((workplace / name).read_text())
    words = ("--config", "small.yaml", "credit.name=research/without_me.py")
    assert command.run(tmp_path, *words).returncode == 0
    mine = tmp_path / "research" / "without_me.py"
    mine.write_text(mine.read_text().replace("sum(s) / len(s)", "max(s)"))
    told = command.run(tmp_path, *words, "--dry-run").stdout
    rows = {r[0]: (int(r[1]), int(r[2])) for r in re.findall(r"^(\w+) +(\d+) +(\d+)$", told, re.M)}
    assert rows["rollout"][0] == rows["rollout"][1] > 0
    assert rows["assign"][1] == rows["report"][1] == 0 < rows["assign"][0]
