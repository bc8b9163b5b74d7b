"""Dr.MAS: each agent's credit is normalised by that agent's own statistics.

A = (R − mean)/(std + ε) over the turns that share task and agent: every turn of the agent, in every sample, std with n −
1. Groups of one or without variance give NaN: no gradient. Source: arXiv 2602.08847: with one mean and deviation for the
whole team, the gradient of an agent whose rewards lie far from the team's explodes.

Unlike `grpo`, turns of one agent are not parted by their number. Normalising each number apart hides a bonus for speaking
again: only long traces have a third turn, it is compared with its like alone, and what speaking so often cost vanishes in
their mean. Here a further turn is measured against all. A sample in which the agent speaks more often weighs more.
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
    return groups.normalised(groups.credits(turns), [(turn.task, turn.agent) for turn in turns], options.epsilon)
