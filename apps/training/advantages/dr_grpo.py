"""Dr.GRPO's advantage: a turn's credit less its group's mean, without a division by the deviation.

A = R − mean over the turns that share task, agent and the turn's number, as `grpo` groups them. Groups of one or without
variance give NaN: no gradient. Source: arXiv 2503.20783, section 3.2: dividing by the deviation weighs questions that are
almost always, or almost never, answered more than the others.

Credit keeps its unit: where one agent's values are ten times another's, so are its gradients (`dr_mas`, `grpo`). The
other half of Dr.GRPO is the objective of that name.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from apps import records
from apps.records import Valued
from apps.training.advantages import groups


class Options(records.Options):
    """There is nothing to set."""


def advantages(turns: Sequence[Valued], options: Options) -> np.ndarray:
    """One advantage a turn, float64 (len(turns),), in the unit of credit; NaN = no gradient."""
    return groups.centred(groups.credits(turns), [(turn.task, turn.agent, turn.index) for turn in turns])
