"""White-box distillation: the policy's next-token distributions are brought near to a teacher's, at every own token.

    T² · Σ m D_T(teacher, π) / Σ m  −  nll · Σ m logp / Σ m

D_T is a divergence over the whole vocabulary at temperature T: `forward` KL(teacher‖π), as Hinton et al. have it (arXiv
1503.02531, section 2; T² keeps the size of its gradient while T changes), `reverse` KL(π‖teacher) as in MiniLLM
(2306.08543, eq. 2, without its gradient through sampling), or `jensen_shannon`, with weight ½ on each (2306.13649, eq. 1). Σ m
counts own tokens of the whole step. Whose words the rows are, the teacher's or the policy's own (on-policy: GKD, 2306.13649), is
the batch builder's choice. `nll` adds the likelihood of those words, 0 as in GKD.

The teacher must have the policy's vocabulary; another one's traces are learnt by `sft`. Metrics add up over micro-batches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from apps import records
from apps.training.batch import Batch
from apps.training.objectives.tokens import own

if TYPE_CHECKING:
    from torch import Tensor

NEEDS: frozenset[str] = frozenset({"teacher"})


class Options(records.Options):
    """How near, and in which sense."""

    divergence: Literal["forward", "reverse", "jensen_shannon"] = Field(
        "forward",
        description="forward: KL(teacher‖policy), covers all that the teacher says; reverse: KL(policy‖teacher), keeps to its likeliest; "
        "jensen_shannon: between the two",
    )
    temperature: float = Field(
        1.0, gt=0, description="both distributions are compared at it, and the loss is times its square"
    )
    nll: float = Field(0.0, ge=0, description="weight of the negative log-likelihood of the rows' own words")


def loss(batch: Batch, options: Options) -> tuple[Tensor, dict[str, float]]:
    """A scalar in nats a token, to be summed over micro-batches."""
    apart = own(batch.divergence(options.divergence, options.temperature), batch).sum() / batch.tokens
    nll = -own(batch.logprobs_BT, batch).sum() / batch.tokens
    value = options.temperature**2 * apart + (options.nll * nll if options.nll else 0)
    return value, {"divergence": float(apart.detach()), "nll": float(nll.detach())}
