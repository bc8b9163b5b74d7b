"""Preflight and staging on Aurora's site: what is launched on three hosts, and what a job script makes of it."""

from __future__ import annotations

import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests import command
from tests.site import here

JOB = """
set -u
MERIT={checkout}
source "$MERIT/jobs/begin.sh" || exit 9
source "$MERIT/jobs/nodes.sh" || exit 8
echo "nodes: $MERIT_NODEFILE, staged: ${{STAGED:-no}}, CCL_OP_SYNC: ${{CCL_OP_SYNC:-unset}}, where: ${{where[*]}}"
"""


def launched(folder: Path) -> list[list[str]]:
    return [json.loads(line)["words"] for line in (folder / "mpiexec.jsonl").read_text().splitlines()]


def test_a_quick_look_starts_one_plain_process_on_each_host(tmp_path):
    env = {**here.environment(tmp_path), "MERIT_MPIEXEC": str(tmp_path / "mpiexec")}
    ended = command.run(tmp_path, "preflight", "--quick", *here.site_options(), "--nodefile", "good", **env)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert (tmp_path / "good").read_text() == "x1\nx2\nx3\n"
    ((*words, _hostfile, bare, _python, _m, module, _question),) = launched(tmp_path)
    assert words == ["-n", "3", "--ppn", "1", "--hostfile"] and bare == "--envall" and module == "apps.platform.probe"


def test_a_login_node_has_no_nodes_to_look_at(tmp_path):
    ended = command.run(tmp_path, "preflight", *here.site_options(account="mine"))
    assert ended.returncode == 2 and "its nodes are those of a job, and this is none; see jobs/" in ended.stderr


@pytest.mark.slow
@pytest.mark.xdist_group("logs of ranks")
def test_a_job_sees_to_its_nodes_before_the_run_starts(tmp_path):
    """In this order: a quick look, the environment, a whole preflight under the environment of training, the model."""
    (tmp_path / "env" / "bin").mkdir(parents=True)
    (tmp_path / "env" / "bin" / "activate").write_text("export STAGED=yes\n")
    with tarfile.open(tmp_path / "env.tar", "w") as tar:
        tar.add(tmp_path / "env", ".")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    job = {"NEEDED": "3", "ENV_TAR": "env.tar", "STAGE": "model", "STAGING": f"{tmp_path}/node", "SITE": "aurora"}
    job |= {"SITE_OPTIONS": " ".join(here.OPTIONS), "MERIT_VENV": str(Path(command.COMMAND[0]).parents[1])}
    ended = subprocess.run(
        ["bash", "-c", JOB.format(checkout=command.ROOT)],
        cwd=tmp_path,
        env={**command.ENVIRONMENT, **here.environment(tmp_path / "job"), **job},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    options = " ".join(
        f"--site-option {option}" for option in [*here.OPTIONS, f"staging={tmp_path}/node", f"venv={tmp_path}/node/env"]
    )
    (nodes,) = (tmp_path / "runs").glob("nodes.*")
    said = f"nodes: {nodes}, staged: yes, CCL_OP_SYNC: unset, where: --site aurora {options}"
    assert ended.stdout.splitlines()[-1] == said and nodes.read_text() == "x1\nx2\nx3\n"
    words = launched(tmp_path / "job")
    modules = [next(word for word in line if word.startswith("apps.platform.")) for line in words]
    probe, staging = "apps.platform.probe", "apps.platform.staging"
    assert modules == [probe, staging, probe, "apps.platform.all_reduce", staging]
    assert words[3][:8] == ["-n", "6", "--ppn", "2", *words[3][4:6], "--cpu-bind", "list:0:0"]
    assert (tmp_path / "node" / "env" / "bin" / "activate").is_file()
    assert list((tmp_path / "node").glob("*/model/config.json"))
