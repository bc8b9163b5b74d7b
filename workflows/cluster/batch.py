"""What a run asks of a batch system. PBS's is pbs.py; a site may bring another with the same three methods.

Not here: how Parsl gets nodes from a login node, which is the site's affair.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

IDS = ("PBS_JOBID", "SLURM_JOB_ID")  # variables that batch systems set in a job

State = Literal["queued", "held", "running", "ending", "finished"]


@dataclass(frozen=True, slots=True)
class Job:
    """A job, as its batch system knows it."""

    id: str
    name: str
    state: State
    queue: str  # where it was submitted, which may hand jobs on to another
    began: float | None = None  # seconds since 1970; None = it has not
    walltime_s: float | None = None  # what it was given; None = no end
    status: int | None = None  # its exit status; None = it has none yet
    nodes: int | None = None
    comment: str = ""  # why it waits, in the batch system's words
    output: str = ""  # the file with what it prints
    variables: tuple[str, ...] = ()  # the names of those that it was submitted with
    options: tuple[str, ...] = ()  # words for `submit` that ask for another like it

    @property
    def ends(self) -> float | None:
        """When it is killed, in seconds since 1970; None as long as that is not known."""
        return self.began + self.walltime_s if self.began is not None and self.walltime_s is not None else None

    @property
    def over(self) -> bool:
        return self.state == "finished"


def here() -> str:
    """The id of the batch job that this process is in; "" outside of one."""
    return next((os.environ[name] for name in IDS if os.environ.get(name)), "")


class Batch(Protocol):
    """Faults are MeritErrors with the batch system's own words."""

    def submit(
        self, script: Path, variables: Mapping[str, str], after: str | None = None, options: Sequence[str] = ()
    ) -> str:
        """Submits a script with these variables in its environment; its id.

        It waits until the job `after` has ended, however it ended. `options` are words of the batch system's own.
        """

    def status(self, id: str) -> Job | None:
        """What is known of a job; None where nothing is (any more)."""

    def delete(self, id: str) -> None:
        """Ends a job, or takes it out of its queue; one that is over is no fault."""
