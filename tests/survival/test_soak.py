"""Rounds of trivial tasks on real managers: nothing grows but the store, by few files. MERIT_SOAK=50,4,64: whole size (minutes)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from workflows.driver import packing

ROOT = Path(__file__).parents[2]
SIZE = os.environ.get("MERIT_SOAK", "20,4,8")  # rounds, agents, shards


@pytest.mark.slow
def test_nothing_leaks_over_many_rounds(tmp_path):
    rounds, agents, shards = (int(word) for word in SIZE.split(","))
    width = agents * shards
    command = [sys.executable, "-m", "tests.survival.soak", f"--rounds={rounds}", f"--agents={agents}"]
    command += [f"--shards={shards}", f"--least={min(packing.LEAST, width // 2)}", str(tmp_path)]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    found = json.loads(told.stdout)
    early, late, after = found["at_a_tenth"], found["at_the_end"], found["afterwards"]
    for name in ("threads", "open_files", "processes", "threads_of_all"):
        assert late[name] <= early[name] + 1, (name, found)
    assert late["open_files_of_all"] <= early["open_files_of_all"] * 1.05 + 8, found
    assert late["resident_mib"] <= early["resident_mib"] * 1.12, found
    # a pack a round, what would make half of one, locks and the log; unpacked it were three files an artifact
    assert after["files"] <= 6 * rounds, found
    # before that, folders have what the last rounds made, and what was just being packed
    assert late["files"] <= 6 * rounds + 3 * 2 * width, found
    assert after["processes"] == 0 and after["threads"] == 1 and after["open_files"] <= 8, found
