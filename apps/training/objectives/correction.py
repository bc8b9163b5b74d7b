"""What engine and trainer disagree about, corrected: weights of tokens, and rows that are left out. Not an objective.

An engine's log-probabilities of its own samples are not quite the trainer's of the same weights: other kernels, another
precision, another dtype. Where they are corrected for, the objective compares π_θ with π_anchor, the *trainer's* policy
before its first step (the batch's `anchor`), and what the engine really sampled from enters by itself:

- token truncation (TIS): each token's gain is multiplied by w = min(π_anchor/π_engine, C), without gradient. Source: Yao et
  al. 2025, "Your efficient RL framework secretly brings you off-policy RL training"; C = 2 is what libraries take.
- sequence mask (MIS): a row is left out whole where Π_t π_anchor/π_engine > C. Source: Liu et al. 2025, "When speed kills
  stability". A product grows with length, so long rows go first; `mean` takes the geometric mean of a row's ratios instead
  and leaves out rows on both sides, outside [1/C, C], with C near 1 (libraries: 1.001; a starting point).

Both may be on. A row that is left out stays in the denominators, which are those of the step and known before; some
libraries divide by what is left. `truncated` is the share of tokens with w = C, `masked` that of rows left out,
`mismatch_kl` KL(π_engine‖π_anchor) in nats a token, by k3.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from apps import records
from apps.training.batch import Batch
from apps.training.objectives.tokens import own

if TYPE_CHECKING:
    from torch import Tensor

NEEDED = frozenset({"old", "anchor"})  # of a batch, where something is corrected


class Correction(records.Options):
    """How the difference between engine and trainer is corrected; by default it is not, and is in the ratio."""

    truncation: float | None = Field(
        None, ge=1, description="C of the weight min(trainer/engine, C) of a token (2); null: no weights"
    )
    sequence_mask: float | None = Field(
        None, gt=1, description="C: rows whose ratio trainer/engine passes it are left out; null: none"
    )
    sequence_ratio: Literal["product", "mean"] = Field(
        "product",
        description="a row's ratio: of all its tokens, or their geometric mean (then C near 1, on both sides)",
    )

    @property
    def corrects(self) -> bool:
        return self.truncation is not None or self.sequence_mask is not None


def log_weight(batch: Batch) -> Tensor:
    """log π_anchor/π_engine of each own token, 0 elsewhere; (B, T), nats, no gradient."""
    return (own(batch.anchor_BT, batch) - own(batch.old_BT, batch)).detach()


def weights(log_weight_BT: Tensor, options: Correction) -> Tensor:
    """min(π_anchor/π_engine, C), of any shape; 1 without truncation."""
    if options.truncation is None:
        return log_weight_BT.new_ones(log_weight_BT.shape)
    return log_weight_BT.exp().clamp(max=options.truncation)


def kept(log_weight_BT: Tensor, length_B: Tensor, options: Correction) -> Tensor:
    """(B,): 1 for the rows that stay, else 0; `length_B` are their own tokens."""
    if options.sequence_mask is None:
        return log_weight_BT.new_ones(len(log_weight_BT))
    apart_B, bound = log_weight_BT.sum(dim=1), math.log(options.sequence_mask)
    if options.sequence_ratio == "mean":
        return ((apart_B / length_B).abs() <= bound).to(log_weight_BT.dtype)
    return (apart_B <= bound).to(log_weight_BT.dtype)


def figures(log_weight_BT: Tensor, kept_B: Tensor, batch: Batch, options: Correction) -> dict[str, float]:
    """The metrics, which add up over micro-batches."""
    k3_BT = log_weight_BT.expm1() - log_weight_BT  # own tokens alone: 0 elsewhere
    found = {"mismatch_kl": float(k3_BT.sum()) / batch.tokens}
    if options.truncation is not None:
        found["truncated"] = float((own(log_weight_BT.exp(), batch) > options.truncation).sum()) / batch.tokens
    if options.sequence_mask is not None:
        found["masked"] = float((1 - kept_B).sum()) / batch.sequences
    return found
