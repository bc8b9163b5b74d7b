"""The end of the batch job that the driver is in, and what becomes of the run then: the next job goes on with it.

Some time before the end (`margin_s` of the site) everything has to be over: what cannot be through by then is not begun
(apps/platform/deadline.py), training saves its work, and the run submits its own successor, which waits for this job to end.
Only the lack of time does that. A run that is finished has no successor, nor has one that failed, since the same fault would
come again; nor one that got nothing done, since the next job would do no better.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from apps import artifacts, dormant, stages
from apps.platform.deadline import TooLate
from apps.records import MeritError
from workflows.cluster import pbs
from workflows.plan import Node
from workflows.sites import Site
from workflows.store import Store

__all__ = ["Deadline", "OutOfTime", "TooLate", "in_job"]

STATUS = 75  # of the command: the job's time was up (EX_TEMPFAIL of sysexits.h)
SAMPLE, TRIED = 8, 64  # artifacts of a stage that are asked how long they took, and that are looked for
SLACK_S = 5  # beyond the grace of those that save, before the driver ends whatever is left

log = logging.getLogger("merit.deadline")


class OutOfTime(MeritError):
    """The run ends because its job does. `job` goes on with it; "" = none does."""

    def __init__(self, message: str, job: str = "") -> None:
        super().__init__(message)
        self.job = job

    @property
    def state(self) -> str:
        """Of the run, for its summary."""
        return f"goes on in job {self.job}" if self.job else "out of time"


def in_job(site: Site, environment: Mapping[str, str] = os.environ) -> Site:
    """`site` with the end and the successor of the batch job that this driver is in, where it does not name them itself."""
    missing = [name for name in ("deadline", "batch", "successor") if getattr(site, name) is None]
    if "deadline" not in missing:
        return site
    found = pbs.around(environment)
    return replace(site, **{name: found[name] for name in missing if name in found})


class Deadline:
    """Of one run (or study) of these nodes; without an end of the job it never comes."""

    def __init__(self, site: Site, shelf: Store, nodes: Collection[Node]) -> None:
        self.site, self.shelf, self.began = site, shelf, time.time()
        self.until = None if site.deadline is None else site.deadline - site.margin_s
        self._usual = self._known(nodes) if self.until is not None else {}

    def told(self, node: Node) -> dict[str, Any]:
        """What a task has to know of it."""
        if self.until is None:
            return {}
        usual, most_s = self._usual.get(node.stage.name), max(0.0, self.until - self.began) / 2
        return {"until": self.until, "usual_s": usual, "margin_s": self.site.margin_s, "most_s": most_s}

    def passed(self) -> bool:
        """Whether even those that were given time to save have had it; the rest of the margin is for what comes after."""
        patience_s = min(self.site.grace_s + SLACK_S, self.site.margin_s / 2)
        return self.until is not None and time.time() > self.until + patience_s

    def left_s(self) -> float:
        """Until the job is killed."""
        return max(0.0, (self.site.deadline or time.time()) - time.time())

    def hand_on(self, nodes: Collection[Node], made: int) -> OutOfTime:
        """What ends the run; its successor is submitted. `made` tasks were done in this job."""
        left = int(self.left_s())
        told = f"the job ends in {left // 60}:{left % 60:02}; what is finished is kept"
        if not made and not self._saved(nodes):
            return OutOfTime(
                f"{told}. Nothing was finished in this job, so no successor was submitted: it would do no better. Give it "
                "a longer walltime, or make smaller tasks (rollout.shards, evaluation.shards)"
            )
        if self.site.successor is None:
            return OutOfTime(f"{told}. No successor was submitted: this job is the last ({pbs.LEFT} of qsub -v)")
        try:
            job = self.site.successor()
        except MeritError as error:
            return OutOfTime(f"{told}. The successor could not be submitted: {error}")
        return OutOfTime(f"{told}; the run goes on in job {job}", job)

    def _saved(self, nodes: Collection[Node]) -> bool:
        """Whether a task of the run has saved a part of its work in this job."""
        folders = [self.shelf.root / stages.PARTIAL / node.lineage for node in nodes if node.lineage]
        # a file system's clock is coarser than the process's
        return any(file.stat().st_mtime >= self.began - 1 for folder in folders for file in folder.glob("step-*"))

    def _known(self, nodes: Collection[Node]) -> dict[str, float]:
        """The longest that some finished tasks of each stage took, of those that this run is made of."""
        tried: Counter[str] = Counter()
        times: dict[str, list[float]] = {}
        for node in nodes:
            stage = node.stage.name
            tried[stage] += 1
            if tried[stage] <= TRIED and len(times.get(stage, ())) < SAMPLE:
                times.setdefault(stage, []).extend(_seconds(self.shelf.root, node))
        return {stage: max(taken) for stage, taken in times.items() if taken}


def _seconds(root: Path, node: Node) -> list[float]:
    """What its artifact took; [] where there is none, or none that can be read."""
    try:
        return [dormant.manifest(artifacts.locate(root, node.stage.name, node.key))["seconds"]]
    except (OSError, ValueError, KeyError):
        return []
