"""Processes that take turns at the tests: those that share a fixture of their file stay together, the others need not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

FILE = """
import os
import pytest
@pytest.fixture(scope="module")
def shared():
    with open("made", "a") as file:
        file.write(f"{os.environ['PYTEST_XDIST_WORKER']} {__name__.rpartition('.')[2]}\\n")
@pytest.mark.parametrize("n", range(8))
def test_with(shared, n):
    pass
@pytest.mark.parametrize("n", range(8))
def test_without(n):
    pass
"""


def test_a_fixture_of_a_file_is_made_once(tmp_path):
    """It is a plugin's private matter how it groups tests, and a new pytest has already kept one from doing so."""
    shutil.copy(Path(__file__).with_name("conftest.py"), tmp_path)
    for name in ("test_one.py", "test_two.py"):
        (tmp_path / name).write_text(FILE)
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadgroup", "--rootdir", str(tmp_path)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0 and "32 passed" in ended.stdout, ended.stdout + ended.stderr
    made = [line.split() for line in (tmp_path / "made").read_text().splitlines()]
    assert sorted(file for _, file in made) == ["test_one", "test_two"]
    assert len({process for process, _ in made}) == 2
