"""How long stages take, and what happens to machines: a YAML file, typed. Times are medians in seconds.

A file may hold figures of a run (`run.py simulate --measured RUN` writes one) or assumptions; it says which in `what`.
"""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import Field, ValidationError

from apps import leaf, records
from apps.records import MeritError


class Training(records.Options):
    """One agent's training task, in inverse proportion to its nodes."""

    seconds: float = Field(ge=0, description="on `nodes` nodes")
    nodes: int = Field(1, ge=1, description="nodes that the seconds hold for")
    most: int = Field(1, ge=1, description="nodes that it can use")

    def on(self, nodes: int) -> float:
        """Seconds on so many nodes."""
        return self.seconds * self.nodes / min(nodes, self.most)


class Failures(records.Options):
    """Nodes that stop answering."""

    per_hour: float = Field(0, ge=0, description="failures an hour, at `nodes` nodes; in proportion to nodes")
    nodes: int = Field(512, ge=1, description="nodes that the rate holds for")
    notice: float = Field(600, ge=0, description="seconds until one is noticed; the node is lost for the job")


class Times(records.Options):
    """All that a simulation is told."""

    what: str = Field(description="measured on what, or assumed")
    stages: dict[str, float] = Field(description="stage: seconds a task; `STAGE evaluation` where that differs")
    train: Training
    load: float = Field(0, ge=0, description="seconds that a worker takes to load its model, once a job")
    spread: float = Field(0, ge=0, le=2, description="σ of the log-normal factor on every task's time")
    shards: dict[str, int] = Field(description="rollout, evaluation: shards a round")
    rounds: int = Field(1, ge=1, description="rounds of the run")
    tiles: int = Field(12, ge=1, description="inference workers of a node")
    cores: int = Field(96, ge=1, description="CPU tasks of a node at once")
    failures: Failures = Failures()
    job_hours: float = Field(0, ge=0, description="walltime of a job; 0 = no end")
    queue: float = Field(0, ge=0, description="seconds between a job's end and its successor's start")

    def seconds(self, stage: str, kind: str) -> float:
        """Of a task; 0 for stages that are not told of, which take next to nothing."""
        return self.stages.get(f"{stage} {kind}", self.stages.get(stage, 0.0))


def read(file: Path) -> Times:
    """MeritError where the file is not there or says something else."""
    if not file.is_file():
        raise MeritError(f"--stage-times: there is no file {str(file)!r}")
    try:
        return Times(**yaml.safe_load(file.read_text(encoding="utf-8")))
    except (yaml.YAMLError, TypeError) as error:
        raise MeritError(f"--stage-times {file}: a YAML mapping of settings is expected: {error}") from error
    except ValidationError as error:
        raise MeritError(leaf.explain(error, f"--stage-times {file}", Times)) from error
