"""Continued pretraining: next-token likelihood, with a KL to the model that it goes on from where that is wanted.

−Σ m logp / Σ m + kl · Σ m D / Σ m, the sums over the whole optimiser step. D is a divergence at one place over the whole
vocabulary, no estimate: `reverse` KL(π_θ‖π_base), which keeps the policy from what the base thinks unlikely; `forward`
KL(π_base‖π_θ), which keeps alive all that the base thinks likely (learning without forgetting, arXiv 1606.09282); or
Jensen and Shannon's. The base is the trainer's teacher, so all weights may be trained, and it costs a second forward pass.
With kl = 0 it is `sft`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from apps import records
from apps.training.batch import Batch
from apps.training.objectives.tokens import own

if TYPE_CHECKING:
    from torch import Tensor

NEEDS: frozenset[str] = frozenset()


class Options(records.Options):
    """How near to the base the policy is kept."""

    kl: float = Field(0.0, ge=0, description="weight of the divergence from the base, nats a token; 0: none")
    kind: Literal["reverse", "forward", "jensen_shannon"] = Field("reverse", description="which divergence")


def needs(options: Options) -> frozenset[str]:
    return frozenset({"teacher"} if options.kl else ())


def loss(batch: Batch, options: Options) -> tuple[Tensor, dict[str, float]]:
    """A scalar in nats a token, to be summed over micro-batches."""
    nll = -own(batch.logprobs_BT, batch).sum() / batch.tokens
    if not options.kl:
        return nll, {"nll": float(nll.detach())}
    apart = own(batch.divergence(options.kind, 1.0), batch).sum() / batch.tokens
    return nll + options.kl * apart, {"nll": float(nll.detach()), "kl": float(apart.detach())}
