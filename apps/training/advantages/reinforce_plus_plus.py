"""REINFORCE++: credit whitened over the whole batch, whatever the task or agent.

A = (R − mean)/(std + ε) over all turns of all agents, std with n − 1. Source: arXiv 2501.03262. With
`baseline` (REINFORCE++-baseline there, for several samples of a task) the mean of the group is taken off first, over the
turns that share task, agent and the turn's number; groups of one or without variance then give NaN: no gradient.

Without it a task that is always solved still pushes its turns up, since others of the batch are not; NaN is given only
where the whole batch is without variance. Each *turn* counts once in the statistics, where libraries count tokens, so that
long answers decide them. The paper's KL in the reward is left out: the objective holds the reference. One scale for all
agents: where their credit differs, `dr_mas`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from apps import records
from apps.records import Valued
from apps.training.advantages import groups


class Options(records.Options):
    """Whether groups are centred first."""

    baseline: bool = Field(False, description="take the mean of each group off before whitening")
    epsilon: float = Field(1e-6, ge=0, description="added to the standard deviation")


def advantages(turns: Sequence[Valued], options: Options) -> np.ndarray:
    """One advantage a turn, float64 (len(turns),); NaN = no gradient."""
    values = groups.credits(turns)
    if options.baseline:
        values = groups.centred(values, [(turn.task, turn.agent, turn.index) for turn in turns])
    says = np.flatnonzero(~np.isnan(values))
    result = np.full(len(values), np.nan)
    result[says] = groups.normalised(values[says], [None] * len(says), options.epsilon)
    return result
