"""An interchange that dies is missed: its tasks fail at once, its workers end, and the driver with them."""

from __future__ import annotations

import os
import signal
import time

import parsl
import pytest

from tests.platform.test_processes import gone
from tests.survival.cluster import PATIENCE_S, at_work
from workflows.driver import interchange


@pytest.mark.slow
def test_an_interchange_that_dies_fails_its_tasks_with_a_word(tmp_path, monkeypatch):
    monkeypatch.setattr(interchange, "PATIENCE_S", 3.0)
    with at_work(tmp_path, managers=1, workers=1, heartbeat_s=30) as cluster:
        task = cluster.launch(1, "wait")
        pids = cluster.waiting()
        os.kill(parsl.dfk().executors["cpu"].interchange_proc.pid, signal.SIGKILL)
        with pytest.raises(
            Exception, match=r"the interchange of cpu has ended \(status -9\); what is finished is kept"
        ):
            task.result(PATIENCE_S)
        began = time.monotonic()
    assert gone(pids) and time.monotonic() - began < 30
