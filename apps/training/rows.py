"""What one agent is trained on: token ids as they were sampled, and a value for each row. Never text.

The one format between the batch builder, the corpora and the trainer: a compressed .npz of flat arrays with offsets,
nothing in it pickled.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from apps.records import MeritError


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """N rows. In pairs, rows 2i and 2i + 1 are the preferred and the rejected completion of the same prompt.

    Where candidates are ranked, the rows of one state lie together and their `advantages` rank them.
    """

    prompts: Sequence[np.ndarray]  # int32 (P,) each: carries no loss; may be empty (plain text)
    completions: Sequence[np.ndarray]  # int32 (C,) each: carries the loss
    logprobs: Sequence[np.ndarray]  # float32 (C,) each, nats, of the policy that sampled; empty arrays where unknown
    advantages: np.ndarray  # float64 (N,), broadcast over each row's tokens; 1 where the objective has none
    temperature: float = 1.0  # of the sampler: the trainer applies the same
    paired: bool = False
    states: np.ndarray | None = None  # int64 (N,), the number of each row's state; None where rows are not ranked

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row, prompt and completion."""
        return np.array([len(p) + len(c) for p, c in zip(self.prompts, self.completions, strict=True)], np.int64)

    @property
    def wholes(self) -> np.ndarray:
        """(N,): equal numbers for neighbours that are never parted, which are the rows of a pair or of a state."""
        return self.states if self.states is not None else np.arange(len(self)) // (2 if self.paired else 1)

    def first(self, count: int) -> Rows:
        """The first `count` rows."""
        kept = (self.prompts[:count], self.completions[:count], self.logprobs[:count], self.advantages[:count])
        return Rows(*kept, self.temperature, self.paired, None if self.states is None else self.states[:count])

    def check(self, needs: Collection[str]) -> None:
        """MeritError where an objective's needs ask for pairs or states that these rows are not in."""
        if not len(self):
            return
        if "pairs" in needs and not (self.paired and len(self) % 2 == 0):
            given = f"{len(self)} rows in pairs: one has no partner" if self.paired else f"{len(self)} single rows"
            raise MeritError(f"the objective compares pairs; given {given}. Build the batch again for this objective")
        if "states" in needs and self.states is None:
            raise MeritError(
                f"the objective ranks the candidates of a state; given {len(self)} rows without their states. Build the "
                "batch again for this objective"
            )

    def save(self, path: Path) -> None:
        aside = path.with_name(path.name + ".part")
        with open(aside, "wb") as file:
            np.savez_compressed(
                file,
                **_flat("prompts", self.prompts, np.int32),
                **_flat("completions", self.completions, np.int32),
                **_flat("logprobs", self.logprobs, np.float32),
                advantages=self.advantages,
                temperature=self.temperature,
                paired=self.paired,
                **({} if self.states is None else {"states": self.states}),
            )
        os.replace(aside, path)

    @classmethod
    def load(cls, path: Path) -> Rows:
        with np.load(path, allow_pickle=False) as file:
            return cls(
                _rows(file, "prompts"),
                _rows(file, "completions"),
                _rows(file, "logprobs"),
                file["advantages"],
                float(file["temperature"]),
                bool(file["paired"]),
                file.get("states"),
            )


def _flat(name: str, rows: Sequence[np.ndarray], dtype: type) -> dict[str, np.ndarray]:
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    values = np.concatenate([np.asarray(row, dtype) for row in rows] or [np.zeros(0, dtype)])
    return {f"{name}_offsets": offsets, f"{name}_values": values}


def _rows(file, name: str) -> list[np.ndarray]:
    return np.split(file[f"{name}_values"], file[f"{name}_offsets"][1:-1]) if len(file[f"{name}_offsets"]) > 1 else []
