"""Runs the real command, as a user does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
COMMAND = (sys.executable, str(ROOT / "workflows" / "run.py"))
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "HF_HUB_OFFLINE": "1"}
SMALL = (  # a whole run of scripted agents in a few seconds
    "engine.name=scripted",
    "rounds=1",
    "tasks={name: arithmetic, train: 40, validation: 20, test: 20}",
    "rollout={tasks: 4, samples: 4}",
    "evaluation={tasks: 12, samples: 2, validation_tasks: 8, shown_tasks: 2}",
)


def run(folder: Path, *words: str, given: Sequence[str] = (), **environment: str) -> subprocess.CompletedProcess[str]:
    """The command with `words` in `folder`. Its output, whatever its exit status."""
    return subprocess.run(
        [*given, *COMMAND, *words],
        cwd=folder,
        env={**ENVIRONMENT, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def start(folder: Path, *words: str, **environment: str) -> subprocess.Popen[str]:
    """The command in a process group of its own, so that it can be sent what a terminal's Ctrl-C sends.

    It hears that even where the tests themselves run in the background, where a shell lets nobody hear it.
    """
    return subprocess.Popen(
        [*COMMAND, *words],
        cwd=folder,
        env={**ENVIRONMENT, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
