"""Rounds of trivial tasks on real managers: nothing grows but the store. MERIT_SOAK=50,4,64 for the whole size (minutes)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SIZE = os.environ.get("MERIT_SOAK", "20,4,8")  # rounds, agents, shards


@pytest.mark.slow
def test_nothing_leaks_over_many_rounds(tmp_path):
    rounds, agents, shards = (int(word) for word in SIZE.split(","))
    command = [sys.executable, "-m", "tests.survival.soak", f"--rounds={rounds}", f"--agents={agents}"]
    told = subprocess.run([*command, f"--shards={shards}", str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    found = json.loads(told.stdout)
    early, late, after = found["at_a_tenth"], found["at_the_end"], found["afterwards"]
    for name in ("threads", "open_files", "processes", "threads_of_all"):
        assert late[name] <= early[name] + 1, (name, found)
    assert late["open_files_of_all"] <= early["open_files_of_all"] * 1.05 + 8, found
    assert late["resident_mib"] <= early["resident_mib"] * 1.12, found
    assert late["files"] <= 3 * found["tasks"] + 60  # of an artifact: its data, its facts, its manifest
    assert after["processes"] == 0 and after["threads"] == 1 and after["open_files"] <= 8, found
