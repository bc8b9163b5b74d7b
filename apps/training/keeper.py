"""The steps of a training task from its first to its last, though the process may end in between.

After each step rank 0 decides, for all, whether its state is saved: when the time has come, at SIGUSR1, and at SIGTERM, after
which the task ends. The next attempt goes on from there, with however many ranks. How a checkpoint looks: checkpoint.py.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from apps.platform import mpi
from apps.platform.requests import AskedToEnd, Requests
from apps.training import checkpoint
from apps.training.checkpoint import Checkpoint, Position
from apps.training.rows import Rows

if TYPE_CHECKING:
    from torch import Tensor

    from apps.training.trainer import Loss, Trainer


class Keeper:
    """Keeps the checkpoints of one task in `folder`; none where it is None. `found` is what an earlier attempt left."""

    def __init__(self, folder: Path | None, minutes: float, world: mpi.World, asked: Requests) -> None:
        kept, newest = mpi.first_says(world, (folder is not None, checkpoint.newest(folder)))
        self.folder = folder if kept else None
        self.found: Checkpoint | None = checkpoint.read(folder / newest) if kept and newest else None
        self.position = self.found.position if self.found else Position()
        self.world, self.minutes, self.asked = world, minutes, asked
        self.began = self.saved = time.monotonic()

    @property
    def seconds(self) -> float:
        """How long the task has taken, earlier attempts included."""
        return self.position.seconds + time.monotonic() - self.began

    def steps(
        self, trainer: Trainer, rows: Sequence[Rows], loss: Loss, needs: frozenset[str], seed: int
    ) -> Iterator[dict[str, Any]]:
        """The metrics of all steps; those of earlier attempts are told again, not done again."""
        history = list(self.position.history)
        yield from history
        for part in range(self.position.part, len(rows)):
            begin = self.position.step if part == self.position.part else 0
            for step, metrics in enumerate(trainer.fit(rows[part], loss, needs, seed, begin), begin + 1):
                history.append(metrics)
                yield metrics
                self._after(trainer, Position(part, step, history, self.seconds))

    def _after(self, trainer: Trainer, position: Position) -> None:
        save, end = mpi.first_says(self.world, (self._due(), self.asked.end))
        if save and self.folder:
            tensors = state_of(trainer)
            if self.world.rank == 0:
                checkpoint.write(self.folder, position, tensors)
            self.saved, self.asked.save = time.monotonic(), False
        if end:
            kept = "what is done is kept, and gone on with by the next run" if self.folder else "nothing of it is kept"
            raise AskedToEnd(f"training was asked to end (SIGTERM) and did so after step {trainer.steps}; {kept}")

    def _due(self) -> bool:
        return self.asked.save or 0 < self.minutes * 60 <= time.monotonic() - self.saved


def state_of(trainer: Trainer) -> dict[str, Tensor]:
    """All that a checkpoint holds, whole and on the CPU; on every rank, since divided weights are fetched by all together."""
    with trainer.ranks.gathered():
        tensors = {f"weight/{name}": _own(p) for name, p in trainer.parameters.items()}
    tensors |= {f"optimiser/{name}": _own(value) for name, value in trainer.state().items()}
    if trainer.anchor is not None:
        torch = trainer.torch
        tensors["anchor/values"] = torch.from_numpy(np.concatenate([*trainer.anchor, np.zeros(0, np.float32)]))
        tensors["anchor/lengths"] = torch.tensor([len(row) for row in trainer.anchor])
    return tensors


def restore(trainer: Trainer, found: Checkpoint) -> None:
    """Optimiser and anchor as they were; the weights were laid over the model before."""
    trainer.restore(found.under("optimiser"))
    anchor: Mapping[str, Tensor] = found.under("anchor")
    if anchor:
        trainer.anchor = np.split(anchor["values"].numpy(), np.cumsum(anchor["lengths"].numpy())[:-1])


def _own(tensor: Tensor) -> Tensor:
    """A copy that shares no memory with another, as safetensors wants."""
    return tensor.detach().cpu().clone().contiguous()
