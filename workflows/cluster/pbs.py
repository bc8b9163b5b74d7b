"""PBS Professional and OpenPBS, by `qsub`, `qstat -f -F json` and `qdel` as they are found on PATH. Tried on OpenPBS 23.06.

What the driver knows of the job that it runs in comes from here too: its nodes, its end, and how it is submitted anew.
"""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from apps.records import MeritError
from workflows.cluster.batch import Batch, Job, State

log = logging.getLogger("merit.pbs")

STATES: dict[str, State] = {"H": "held", "S": "held", "U": "held", "R": "running", "B": "running", "E": "ending"}
STATES |= {"F": "finished", "X": "finished", "M": "finished"}  # any other letter is of a job that waits
UNKNOWN, FINISHED = 153, 35  # exit statuses: there is no such job; it has ended
ALIKE = ("select", "place", "walltime", "filesystems")  # the resources that a job's successor asks for too
SCRIPT, LEFT = (
    "MERIT_JOB_SCRIPT",
    "CONTINUATIONS",
)  # set by jobs/begin.sh: what was submitted; how many may still follow
TRIES, PAUSE_S = 3, 5.0  # of asking the server at the start of a run


class PBS:
    """A `batch.Batch`."""

    def submit(
        self, script: Path, variables: Mapping[str, str], after: str | None = None, options: Sequence[str] = ()
    ) -> str:
        """Submits from the folder of the job that this process is in, else from the current one.

        Values travel in qsub's environment and `-v` has names alone, so that blanks and commas in them are safe. Quotation marks
        and backslashes are not: qsub drops or doubles them, so such a value is refused.
        """
        if spoilt := [name for name, value in variables.items() if set(value) & set("'\"\\")]:
            raise MeritError(
                f"qsub would spoil the quotation marks or backslashes in {', '.join(spoilt)}; say it in a file of settings (CONFIG)"
            )
        words = ["qsub", *options, *(("-W", f"depend=afterany:{after}") if after else ())]
        words += ["-v", ",".join(variables)] if variables else []
        done = _call([*words, str(script)], cwd=os.environ.get("PBS_O_WORKDIR"), env={**os.environ, **variables})
        if done.returncode:
            raise MeritError(f"qsub refuses {script}: {_words(done)}")
        return done.stdout.strip()

    def status(self, id: str) -> Job | None:
        done = _call(["qstat", "-f", "-F", "json", id])
        if done.returncode == FINISHED:
            done = _call(["qstat", "-x", "-f", "-F", "json", id])
        if done.returncode == UNKNOWN:
            return None
        if done.returncode:
            raise MeritError(f"qstat does not tell of job {id}: {_words(done)}")
        return read(done.stdout)

    def delete(self, id: str) -> None:
        done = _call(["qdel", id])
        if done.returncode not in (0, UNKNOWN, FINISHED):
            raise MeritError(f"qdel does not end job {id}: {_words(done)}")


def read(text: str) -> Job | None:
    """The first job in what `qstat -f -F json` has printed; None where it holds none."""
    jobs = _parsed(text).get("Jobs") or {}
    return next((_job(id, attributes) for id, attributes in jobs.items()), None)


def around(environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """What a `sites.Site` says of the PBS job that this process is in (`batch`, `deadline`, `successor`); {} outside of one."""
    if not environment.get("PBS_JOBID"):
        return {}
    batch, job = PBS(), _patiently(environment["PBS_JOBID"])
    if job is None:
        log.warning("PBS tells nothing of job %s: the run does not know its end", environment["PBS_JOBID"])
        return {"batch": batch}
    return {"batch": batch, "deadline": job.ends, "successor": successor(batch, job, environment)}


def nodes(environment: Mapping[str, str] = os.environ) -> list[str]:
    """The hosts of the job, each once, the one that the driver is on first; [] outside of a job."""
    file = environment.get("PBS_NODEFILE")
    return list(dict.fromkeys(Path(file).read_text().split())) if file else []


def successor(batch: Batch, job: Job, environment: Mapping[str, str]) -> Callable[[], str] | None:
    """Submits what `job` is once more, to begin when it has ended; None where it was not to go on, or often enough."""
    script, left = environment.get(SCRIPT), int(environment.get(LEFT) or 0)
    if not script or left < 1:
        return None
    kept = {name: environment[name] for name in job.variables if name in environment}
    return lambda: batch.submit(Path(script), {**kept, LEFT: str(left - 1)}, job.id, job.options)


def _job(id: str, told: Mapping[str, Any]) -> Job:
    resources, variables = told.get("Resource_List", {}), told.get("Variable_List", {})
    queue = str(
        variables.get("PBS_O_QUEUE") or told.get("queue", "")
    )  # a routing queue hands jobs to one that takes none
    asked = [("-q", queue), ("-A", told.get("Account_Name")), ("-N", told.get("Job_Name"))]
    asked += [("-l", f"{name}={resources[name]}") for name in ALIKE if name in resources]
    return Job(
        id=id,
        name=str(told.get("Job_Name", "")),
        state=STATES.get(str(told.get("job_state")), "queued"),
        queue=queue,
        began=_moment(told.get("stime")),
        walltime_s=_seconds(resources.get("walltime")),
        status=told.get("Exit_status"),
        nodes=resources.get("nodect"),
        comment=str(told.get("comment", "")),
        output=str(told.get("Output_Path", "")).partition(":")[2],  # of HOST:PATH
        variables=tuple(name for name in variables if not name.startswith("PBS_")),
        options=tuple(word for option, value in asked if value for word in (option, str(value))),
    )


LINE = re.compile(r'(\s*"(?:[^"\\]|\\.)*":)(.*?)(,?)$')  # "name":value, as qstat prints it


def _parsed(text: str) -> dict[str, Any]:
    """qstat's JSON. It may be broken by a value: PBS prints `inf`, `.5` or a stray backslash as they are."""
    for attempt in (text, "\n".join(map(_mended, text.split("\n")))):
        try:
            return json.loads(attempt, strict=False)
        except json.JSONDecodeError as error:
            fault = error
    line = text.split("\n")[fault.lineno - 1].strip()[:200] if text else "nothing"
    raise MeritError(f"qstat has printed no valid JSON ({fault}), perhaps for a value in the job's environment: {line}")


def _mended(line: str) -> str:
    """A line whose value is no JSON, with that value as text."""
    found = LINE.fullmatch(line)
    if not found or found[2] in ("{", "[", "{}", "[]"):
        return line
    try:
        json.loads(found[2], strict=False)
        return line
    except json.JSONDecodeError:
        return found[1] + json.dumps(found[2].removeprefix('"').removesuffix('"')) + found[3]


def _moment(told: Any) -> float | None:
    """`Mon Nov 30 12:00:00 2026`, in the time zone of this machine, or seconds since 1970."""
    if told is None or isinstance(told, (int, float)):
        return told
    return time.mktime(time.strptime(told, "%a %b %d %H:%M:%S %Y"))


def _seconds(walltime: Any) -> float | None:
    """Of HH:MM:SS."""
    if walltime is None:
        return None
    total = 0
    for part in str(walltime).split(":"):
        total = total * 60 + int(part)
    return total


def _patiently(id: str) -> Job | None:
    for attempt in range(TRIES):
        try:
            return PBS().status(id)
        except MeritError as error:
            log.warning("%s", error)
            time.sleep(PAUSE_S if attempt < TRIES - 1 else 0)
    return None


def _call(words: list[str], **how: Any) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            words, capture_output=True, encoding="utf-8", errors="replace", timeout=120, **how
        )  # qstat gives other letters back as bytes that are no UTF-8
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MeritError(f"{words[0]}: {error}; is this a machine with PBS?") from error


def _words(done: subprocess.CompletedProcess[str]) -> str:
    return (done.stderr or done.stdout).strip() or f"it ended with status {done.returncode}"
