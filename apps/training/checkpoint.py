"""Checkpoints of an unfinished training task: weights, optimiser, and where in the rows it is; so that it is gone on with.

A checkpoint does not know how many ranks wrote it: tensors are whole and named by parameter, and the rest is JSON. Draws are
keyed by seed and step, and the schedule is a function of the step, so neither has a state. One folder a task:

    step-000012/state.safetensors    weight/NAME, optimiser/KEY/NAME, anchor/…
    step-000012/position.json        part and step to go on with, metrics of the steps before
    last_good/                       the policy, where training could not go on (NaN)

Each is written aside, flushed and renamed, and only then is the one before removed. Who writes holds a lock on the folder,
which the kernel lets go when the process ends; a second task that finds it held keeps no checkpoints.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apps import artifacts

if TYPE_CHECKING:
    from torch import Tensor, nn

STATE, POSITION, LAST_GOOD = "state.safetensors", "position.json", "last_good"


@dataclass(frozen=True, slots=True)
class Position:
    """Where in a task's rows its training is."""

    part: int = 0  # which of the task's batches of rows
    step: int = 0  # its optimiser steps that are done
    history: list[dict[str, Any]] = field(default_factory=list)  # the metrics of all steps so far
    seconds: float = 0.0  # that they took


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """What a task goes on from."""

    position: Position
    tensors: Mapping[str, Tensor]

    def under(self, prefix: str) -> dict[str, Tensor]:
        """The tensors of one kind, without its prefix."""
        return {n.removeprefix(f"{prefix}/"): t for n, t in self.tensors.items() if n.startswith(f"{prefix}/")}

    def lay_over(self, model: nn.Module) -> None:
        """Gives the trained parameters their values; before ranks divide them."""
        for name, value in self.under("weight").items():
            model.get_parameter(name).data.copy_(value)


@contextmanager
def held(folder: Path | None, first: bool) -> Iterator[Path | None]:
    """The folder, made and locked while it lasts; None where there is none, or where another task has it. `first`: rank 0."""
    if folder is None or not first:
        yield folder
        return
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        except OSError:  # a file system without locks: the worst is a checkpoint that another task has written
            pass
        yield folder


def newest(folder: Path | None) -> str:
    """The name of the newest checkpoint that is whole; "" where there is none."""
    found = sorted(folder.glob("step-*[0-9]"), reverse=True) if folder else []
    return next((place.name for place in found if _whole(place)), "")


def read(place: Path) -> Checkpoint:
    from safetensors.torch import load_file

    return Checkpoint(Position(**json.loads((place / POSITION).read_text())), load_file(place / STATE))


def write(folder: Path, position: Position, tensors: Mapping[str, Tensor]) -> Path:
    """Adds a checkpoint to the folder and removes those before it."""
    from safetensors.torch import save_file

    place = folder / f"step-{len(position.history):06}"
    aside = place.with_name(f"{place.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    save_file(dict(tensors), aside / STATE)
    (aside / POSITION).write_text(json.dumps(asdict(position)) + "\n", encoding="utf-8")
    for path in (aside / STATE, aside / POSITION, aside):
        artifacts.flush(path)
    shutil.rmtree(place, ignore_errors=True)
    os.rename(aside, place)
    artifacts.flush(folder)
    for older in folder.glob("step-*"):
        if older != place:
            shutil.rmtree(older, ignore_errors=True)
    return place


def _whole(place: Path) -> bool:
    """Whether it can be read; what a crash of the machine left half-written counts as absent."""
    from safetensors import SafetensorError, safe_open

    try:
        json.loads((place / POSITION).read_text())
        with safe_open(place / STATE, "pt"):
            return True
    except (OSError, ValueError, SafetensorError):
        return False
