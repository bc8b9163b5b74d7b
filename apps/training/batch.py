"""What an objective is given: one micro-batch as padded tensors, with the denominators of the whole step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """A micro-batch of B rows padded to T completion tokens. Everything is in nats.

    `tokens`, `sequences`, `pairs` and `states` count the *whole* optimiser step over all its micro-batches and ranks. An
    objective divides by them and never by its own size, so splitting a step changes neither loss nor gradient. For a
    pairwise objective rows 2i and 2i + 1 are the preferred and the rejected completion of a pair; where candidates are
    ranked, all rows of a state are in one micro-batch.
    """

    logprobs_BT: Tensor | None  # log π_θ of each completion token; carries the gradient; None for scalar heads
    mask_BT: Tensor  # 1 at the agent's own completion tokens, 0 at others and at padding
    tokens: float  # Σ mask over the whole step
    sequences: float  # rows of the whole step
    pairs: float = 0.0  # pairs of the whole step
    old_BT: Tensor | None = None  # log π_old as sampled
    reference_BT: Tensor | None = None  # log π_ref of the frozen reference
    advantages_BT: Tensor | None = None  # one value a token
    states: float = 0.0  # states of the whole step
    state_B: Tensor | None = None  # which rows are candidates of one state: equal numbers
    entropy_BT: Tensor | None = None  # of π_θ at each token; carries the gradient
    anchor_BT: Tensor | None = None  # log π of the trainer's own weights before the first step of this training task
    scores_BT: Tensor | None = None  # the scalar head after reading each token; carries the gradient
    values_BT: Tensor | None = None  # the scalar head before each token; carries the gradient
    targets_BT: Tensor | None = None  # what a scalar head is taught; NaN where nothing
    old_values_BT: Tensor | None = None  # what the scalar head said when the row was sampled
    divergence: Callable[[str, float], Tensor] | None = (
        None  # (kind, temperature) -> (B, T), between teacher and π_θ; head.py
    )
    mismatch: float = 0.0  # mean logp_θ − logp_ref, nats a sequence, of completions under other rows' prompts
