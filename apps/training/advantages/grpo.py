"""GRPO: a turn's credit against the same agent's same turn in the other traces of the task.

A = (R − mean)/(std + ε) over the turns that share task, agent and the turn's number, std with n − 1. Groups of one or
without variance give NaN: no gradient. Source: arXiv 2402.03300, eq. 3 (outcome supervision); the grouping by agent
and turn number makes it fit a team.

Not AT-GRPO: turns of one group may have seen different prompts here, since the traces parted earlier. Nor Dr.GRPO,
which does not divide by std.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from apps import records
from apps.records import Valued
from apps.training.advantages import groups


class Options(records.Options):
    """How a group is normalised."""

    epsilon: float = Field(1e-6, ge=0, description="added to the standard deviation")


def advantages(turns: Sequence[Valued], options: Options) -> np.ndarray:
    """One advantage a turn, float64 (len(turns),); NaN = no gradient."""
    keys = [(turn.task, turn.agent, turn.index) for turn in turns]
    return groups.normalised(groups.credits(turns), keys, options.epsilon)
