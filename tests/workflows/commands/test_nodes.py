"""The command `stage` on hosts that are names: a node that dies in the middle is left out, and the others have their copies."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests import command
from tests.platform import hosts

SITE = '''"""Hosts that are names on this machine, each with a folder of its own."""
import dataclasses
import runpy
from pathlib import Path
local = runpy.run_path({local!r})
Options = local["Options"]
def site(options):
    staging = Path(__file__).parent / "node-{{rank}}"
    return dataclasses.replace(local["site"](options), hosts={nodes!r}, on_hosts={words!r}, staging=staging)
'''


def stage(folder: Path, ailments: dict[str, object], *words: str) -> subprocess.CompletedProcess[str]:
    local = str(command.ROOT / "site" / "local" / "config.py")
    (folder / "site.py").write_text(SITE.format(local=local, nodes=("x1", "x2", "x3"), words=hosts.WORDS))
    (folder / "model").mkdir()
    (folder / "model" / "weights").write_text("1 2 3")
    told = hosts.environment(ailments, folder / "record")
    return command.run(folder, "stage", "model", "--site", "./site.py", "--nodefile", "good", *words, **told)


def tried(folder: Path) -> list[list[str]]:
    return [json.loads(line) for line in (folder / "record").read_text().splitlines()]


def test_a_node_that_dies_in_the_middle_is_left_out(tmp_path):
    ended = stage(tmp_path, {"x2": "dies"}, "--at-least", "2")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "x2 has died, so the others begin again without it: the launch ended with status " in ended.stderr
    assert tried(tmp_path) == [["x1", "x2", "x3"], ["x1", "x3"]]
    assert (tmp_path / "good").read_text() == "x1\nx3\n"
    assert len(list(tmp_path.glob("node-[01]/*/model/weights"))) == 2


def test_the_job_ends_where_too_few_are_left(tmp_path):
    ended = stage(tmp_path, {"x2": "dies"}, "--at-least", "3")
    assert ended.returncode == 1 and "error: 2 of 2 nodes are good, 3 are needed" in ended.stderr
    assert not (tmp_path / "good").exists()


def test_a_launch_that_says_of_nobody_that_he_died_is_told_of_and_not_tried_again(tmp_path):
    ended = stage(tmp_path, {"x2": "refused"})
    assert (
        ended.returncode == 1 and "error: stage: the launch ended with status 1: a host was not reached" in ended.stderr
    )
    assert len(tried(tmp_path)) == 1
