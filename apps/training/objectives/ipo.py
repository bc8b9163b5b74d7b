"""Identity preference optimisation: bring the margin to 1/(2τ) and no further.

(Δ − 1/(2τ))² a pair, mean over the pairs of the step; Δ as in DPO. Source: arXiv 2310.12036, eq. 17, where log π(y|x)
is that of the whole completion, a sum over its tokens. τ is the strength of the pull to the reference, DPO's β.

Libraries in common use (TRL) take the mean over each completion's tokens in Δ instead, so that one τ fits all lengths:
`per_token=true`. The same τ then asks for a far larger change, 1/(2τ) nats a token. τ = .1 is the libraries' default;
the paper has none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from apps import records
from apps.training.batch import Batch
from apps.training.objectives.pairs import delta, difference, lengths, ratios, summary

if TYPE_CHECKING:
    from torch import Tensor

NEEDS: frozenset[str] = frozenset({"reference", "pairs"})


class Options(records.Options):
    """Which margin is wanted, and in what unit."""

    tau: float = Field(
        0.1, gt=0, description="strength of the pull to the reference: the margin wanted is 1/(2 tau) nats"
    )
    per_token: bool = Field(False, description="as in TRL: means over a completion's tokens in place of sums")


def loss(batch: Batch, options: Options) -> tuple[Tensor, dict[str, float]]:
    """A scalar in squared nats a pair, to be summed over micro-batches."""
    mean_B = ratios(batch) / lengths(batch).clamp(min=1)
    margin_P = difference(mean_B) if options.per_token else delta(batch)
    return (margin_P - 1 / (2 * options.tau)).square().sum() / batch.pairs, summary(margin_P, batch)
