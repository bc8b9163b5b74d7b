"""RLOO: a turn's credit less the mean credit of the others of its group, so that its own luck is not its baseline.

A_i = R_i − 1/(n−1) Σ_{j≠i} R_j = n/(n−1) (R_i − mean), over the turns that share task, agent and the turn's number, as
`grpo` groups them. Groups of one or without variance give NaN: no gradient. Source: arXiv 2402.14740.

It differs from `dr_grpo` by the factor n/(n−1), thus only where groups differ in size. The gradient is unbiased, the
deviation does not enter, and credit keeps its unit. Not C3's baseline, which leaves one out among siblings of one prefix:
that is the credit method `counterfactual`.

With `kl_in_reward` β the R of a turn is its credit − β Σ_t (logp_old − logp_ref), before the baseline, as published; 0 by
default, where the objective holds the reference or nothing does.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from apps import records
from apps.records import Valued
from apps.training.advantages import groups


class Options(records.Options):
    """How strongly the reference holds, in the reward."""

    kl_in_reward: float = Field(0.0, ge=0, description="β of −β Σ (logp_old − logp_ref) in a turn's reward; 0 none")


def wants(options: Options) -> frozenset[str]:
    """What has to be known of tokens."""
    return frozenset({"reference"} if options.kl_in_reward else ())


def advantages(turns: Sequence[Valued], options: Options) -> np.ndarray:
    """One advantage a turn, float64 (len(turns),), in the unit of credit; NaN = no gradient."""
    values, keys = groups.held(turns, options.kl_in_reward), [(turn.task, turn.agent, turn.index) for turn in turns]
    result = groups.centred(values, keys)
    for group in groups.varied(values, keys):
        result[group] *= len(group) / (len(group) - 1)
    return result
