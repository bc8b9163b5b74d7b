"""What an engine is asked and what it answers. An engine is a leaf of `apps/inference/engines`:

`load(model, options, device) -> Engine`; nothing else in Merit knows how tokens are made. An engine holds one model; where
agents have models of their own, models.py puts several together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from apps.effects import Ask
from apps.records import Policy, Sampling, Task


@dataclass(frozen=True, slots=True)
class Request:
    """One completion that is wanted."""

    policy: Policy
    prompt: str  # the rendered prompt as text
    prompt_ids: np.ndarray  # int32 (P,)
    sampling: Sampling
    seed: int  # all of this completion's randomness
    task: Task  # what the play is about; a model never sees it, scripted agents do
    ask: Ask  # likewise
    path: str = ""  # of the turn in its play; likewise


@dataclass(frozen=True, slots=True, eq=False)
class Completion:
    """What was sampled."""

    text: str
    ids: np.ndarray  # int32 (C,), the end token included where it was sampled
    logprobs: np.ndarray  # float32 (C,), nats, of the sampling distribution
    finish: Literal["stop", "length"]
    kept: np.ndarray | None = (
        None  # int32 (C, K): the ids that each token was drawn from, −1 beyond; None = all of them
    )


class Engine(Protocol):
    """Speaks for policies. Not safe for several threads at once: a site gives it one."""

    def render(self, system: str, user: str) -> tuple[str, np.ndarray]:
        """A prompt through the model's own chat template: its text and its ids."""

    def completion(self, text: str) -> np.ndarray:
        """A text as a whole completion: its ids, int32 (C,), closed by the end token."""

    def encode(self, text: str) -> np.ndarray:
        """Token ids int32 of a text that holds its special tokens already."""

    def joined(self, pieces: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Pieces of a text as one whole completion: its ids, int32 (C,), and the place of each piece's last token."""

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """One completion a request, in order. The same seed draws the same numbers whatever the batch."""

    def score(self, policy: Policy, sequences: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
        """Log-probabilities (nats, at temperature 1) of each sequence's completion ids after its prompt ids."""

    def reward(self, policy: Policy, sequences: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
        """What the policy's scalar head says after each of a sequence's completion ids, float32 (C,)."""
