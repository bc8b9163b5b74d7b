"""How a run stands, as seen from any machine that sees its folder: what it says itself, who drives it, and its batch jobs."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apps import leaf
from apps.records import MeritError
from workflows import config as configuration
from workflows import sites, store
from workflows.cluster import pbs
from workflows.cluster.batch import Batch, Job
from workflows.driver import run_folder

TAIL_BYTES = 1 << 16  # of a log, that its last lines are looked for in


@dataclass(frozen=True, slots=True)
class Status:
    """What is known of a run."""

    folder: Path
    state: str  # as its summary has it; "queued" where it has not begun, "killed" where nobody was left to say how it ended
    error: str
    driver: dict[str, Any] | None  # pid, host, since; None = no driver that could be seen
    jobs: tuple[Job, ...]  # of those that carry it out, the ones that its batch system still knows, in their order
    last: str  # line of its log

    @property
    def waiting(self) -> list[Job]:
        """Jobs that are not over."""
        return [job for job in self.jobs if not job.over]


def of(folder: Path, batch: Batch | None) -> Status:
    """Asks the batch system of all jobs that the run has noted, if there is one."""
    summary = _read(folder / run_folder.SUMMARY)
    known = [batch.status(id) for id in run_folder.jobs(folder)] if batch else []
    jobs = tuple(job for job in known if job)
    driver, state = store.holder(folder), str(summary.get("state", "queued"))
    if driver and batch and not _drives(driver, folder, jobs):
        driver = None
    if state == "running" and driver is None:
        state = "killed"
    return Status(folder, state, str(summary.get("error", "")), driver, jobs, "".join(lines(folder, 1)).strip())


def folder_of(runs: Path, run: str) -> Path:
    """The folder of a run or study, finished or not, by its name or by itself."""
    for folder in (runs / run, Path(run)):
        if any((folder / name).is_file() for name in (run_folder.SUMMARY, run_folder.JOBS)):
            return folder.resolve()
    known = {file.parent.name for name in (run_folder.SUMMARY, run_folder.JOBS) for file in runs.glob(f"*/{name}")}
    raise MeritError(leaf.unknown(f"runs in {runs}", run, sorted(known - {"latest"})))


def batch_of(folder: Path) -> Batch | None:
    """The batch system of the site that the run was started on; PBS where the site names none and PBS is here."""
    kept = _read(folder / "environment.json")
    try:
        words = [configuration.parse_word(word) for word in kept.get("site_options", [])]
        site = sites.load(kept.get("site", "local"), **{key: value for word in words for key, value in word.items()})
    except MeritError:  # its file may lie elsewhere by now, or not be meant for this machine
        site = None
    if site and site.batch:
        return site.batch
    return pbs.PBS() if shutil.which("qstat") else None


def lines(folder: Path, count: int) -> list[str]:
    """The last lines of the run's log."""
    file = folder / run_folder.LOG
    if not file.is_file() or not count:
        return []
    with open(file, "rb") as stream:
        stream.seek(max(0, file.stat().st_size - TAIL_BYTES))
        return stream.read().decode(errors="replace").splitlines(keepends=True)[-count:]


def told(found: Status) -> list[tuple[str, str]]:
    """For people: (what, text)."""
    rows = [("run", f"{found.folder.name}: {found.state}")]
    rows += [("", found.error)] if found.error else []
    rows += [("last", found.last)] if found.last and found.driver else []
    if found.driver:
        rows.append(
            ("driver", f"process {found.driver['pid']} on {found.driver['host']} since {found.driver['since']}")
        )
    rows += [("job", _job(job)) for job in found.jobs[-2:]]
    rows += [("its output", job.output) for job in found.jobs[-1:] if job.output]
    rows.append(("log", str(found.folder / run_folder.LOG)))
    pages = [page for name in ("report.html", "sweep.html") if (page := found.folder / name).is_file()]
    return rows + [("report", str(page)) for page in pages]


def _job(job: Job) -> str:
    parts = [f"{job.id}: {job.state} in {job.queue}"]
    if job.state == "running" and job.ends:
        left = max(0, round(job.ends - time.time()))
        parts.append(f"{left // 3600}:{left % 3600 // 60:02} of {(job.walltime_s or 0) / 3600:.1f} h left")
    if job.over:
        parts.append(f"exit status {job.status}")
    return ", ".join([*parts, *([job.comment] if job.comment and not job.over else [])])


def _drives(driver: dict[str, Any], folder: Path, jobs: Sequence[Job]) -> bool:
    """Whether a driver that was in a batch job can still be there. One outside of any is believed."""
    job = _read(folder / "environment.json").get("job")
    return not job or any(known.id == job and not known.over for known in jobs)


def _read(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
