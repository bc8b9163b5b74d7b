"""From a measured run the time of another one is told, and is what that one then takes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.command import run

SETTINGS = (
    "rounds=1",
    "evaluation={tasks: 60, samples: 1, validation_tasks: 40, shown_tasks: 4}",
    "training={epochs: 1}",
)
OTHER = ("rollout.shards=4", "evaluation.shards=3")


def carried_out(folder: Path, name: str, *words: str) -> dict[str, float]:
    """What a run of the embedded model used, in a store of its own."""
    ended = run(folder, *SETTINGS, f"name={name}", f"store={name}", *words)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return json.loads((folder / "runs" / name / "summary.json").read_text())["use"]


@pytest.mark.slow
def test_a_run_of_other_shards_on_another_number_of_workers_takes_what_was_predicted(tmp_path):
    carried_out(tmp_path, "first", "--site-option", "cores=2", "--site-option", "device=cpu")
    option = ("--site-option", "cores=1", "--site-option", "device=cpu")
    told = run(tmp_path, "simulate", "--measured", "first", "--out", "ahead", *OTHER, *option)
    assert told.returncode == 0, told.stderr
    seconds, work = re.search(r"^predicted .*: ([\d.]+) s, ([\d.]+) core-seconds", told.stdout, re.M).groups()
    real = carried_out(tmp_path, "second", *OTHER, *option)
    # the processor's time alone: the clock is also that of whoever else uses this machine, and one core takes no less than the work
    assert float(work) == pytest.approx(real["busy_s"], rel=0.35)
    assert float(seconds) >= float(work)
