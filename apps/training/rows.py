"""What one agent is trained on: token ids as they were sampled, and a value for each row. Never text.

The one format between the batch builder, the corpora and the trainer: a compressed .npz of flat arrays with offsets,
nothing in it pickled.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
    # One figure a completion token, float32 (C,) a row. `mask`: 0 carries no loss (without it all do); `advantages`: instead
    # of the row's own; `targets`: what a scalar head is taught, NaN for nothing; `values`: what it said when it was sampled.
    columns: Mapping[str, Sequence[np.ndarray]] = field(default_factory=dict)
    kept: Sequence[
        np.ndarray
    ] = ()  # int32 (C, K) each: the ids that each token was drawn from, −1 beyond; empty = all ids
    names: Sequence[str] = ()  # where each row comes from (its trace and turn), for errors; empty where it is not known

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row, prompt and completion."""
        return np.array([len(p) + len(c) for p, c in zip(self.prompts, self.completions, strict=True)], np.int64)

    @property
    def highest(self) -> int:
        """The highest token id; -1 without any."""
        return max((int(ids.max()) for ids in (*self.prompts, *self.completions) if len(ids)), default=-1)

    @property
    def wholes(self) -> np.ndarray:
        """(N,): equal numbers for neighbours that are never parted, which are the rows of a pair or of a state."""
        return self.states if self.states is not None else np.arange(len(self)) // (2 if self.paired else 1)

    def own(self, i: int) -> np.ndarray:
        """(C,): 1 at the tokens of row i that carry loss, else 0."""
        return self.columns["mask"][i] if "mask" in self.columns else np.ones(len(self.completions[i]), np.float32)

    def called(self, i: int) -> str:
        """What an error calls row i: with where it comes from, as far as that is known."""
        return f"row {i} ({self.names[i]})" if len(self.names) else f"row {i}"

    def first(self, count: int) -> Rows:
        """The first `count` rows."""
        ragged = {name: getattr(self, name)[:count] for name in ("prompts", "completions", "logprobs", "advantages")}
        states = None if self.states is None else self.states[:count]
        return replace(
            self,
            **ragged,
            states=states,
            columns={k: v[:count] for k, v in self.columns.items()},
            kept=self.kept[:count],
            names=self.names[:count],
        )

    def check(self, needs: Collection[str]) -> None:
        """MeritError where an objective's needs ask for pairs or states that these rows are not in."""
        if not len(self):
            return
        self._check_columns()
        if "pairs" in needs and not (self.paired and len(self) % 2 == 0):
            given = f"{len(self)} rows in pairs: one has no partner" if self.paired else f"{len(self)} single rows"
            raise MeritError(f"the objective compares pairs; given {given}. Build the batch again for this objective")
        if "pairs" in needs:
            for i in [i for i, said in enumerate(self.completions) if not len(said)][:1]:
                half = "rejected" if i % 2 else "preferred"
                raise MeritError(f"pair {i // 2} has no {half} completion: {self.called(i)} is empty")
        if "states" in needs and self.states is None:
            raise MeritError(
                f"the objective ranks the candidates of a state; given {len(self)} rows without their states. Build the "
                "batch again for this objective"
            )

    def _check_columns(self) -> None:
        """MeritError where a figure a token is not there for every token."""
        for name, column in {**self.columns, **({"kept": self.kept} if len(self.kept) else {})}.items():
            for i, (figures, said) in enumerate(zip(column, self.completions, strict=True)):
                if len(figures) != len(said):
                    raise MeritError(
                        f"row {i} has {len(said)} completion tokens, but {len(figures)} in its column {name!r}"
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
                **_flat("kept", [ids.ravel() for ids in self.kept], np.int32),
                kept_widths=np.array([ids.shape[1] for ids in self.kept], np.int64),
                columns=np.array(sorted(self.columns), dtype="U"),
                names=np.array(self.names, dtype="U"),
                **{
                    k: v
                    for name in self.columns
                    for k, v in _flat(f"column_{name}", self.columns[name], np.float32).items()
                },
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
                {name: _rows(file, f"column_{name}") for name in file["columns"].tolist()},
                [
                    ids.reshape(-1, width)
                    for ids, width in zip(_rows(file, "kept"), file["kept_widths"].tolist(), strict=True)
                ],
                file["names"].tolist(),
            )


def _flat(name: str, rows: Sequence[np.ndarray], dtype: type) -> dict[str, np.ndarray]:
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    values = np.concatenate([np.asarray(row, dtype) for row in rows] or [np.zeros(0, dtype)])
    return {f"{name}_offsets": offsets, f"{name}_values": values}


def _rows(file, name: str) -> list[np.ndarray]:
    return np.split(file[f"{name}_values"], file[f"{name}_offsets"][1:-1]) if len(file[f"{name}_offsets"]) > 1 else []
