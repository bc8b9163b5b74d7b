"""RLOO: a turn's credit less the mean credit of the others of its group, so that its own luck is not its baseline.

A_i = R_i − 1/(n−1) Σ_{j≠i} R_j = n/(n−1) (R_i − mean), over the turns that share task, agent and the turn's number, as
`grpo` groups them. Groups of one or without variance give NaN: no gradient. Source: arXiv 2402.14740.

It differs from `dr_grpo` by the factor n/(n−1), thus only where groups differ in size. The gradient is unbiased, the
deviation does not enter, and credit keeps its unit. Not C3's baseline, which leaves one out among siblings of one prefix:
that is the credit method `counterfactual`.
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
    values, keys = groups.credits(turns), [(turn.task, turn.agent, turn.index) for turn in turns]
    result = groups.centred(values, keys)
    for group in groups.varied(values, keys):
        result[group] *= len(group) / (len(group) - 1)
    return result
