"""A constant baseline: a turn's credit less a threshold, with nothing else to compare it with.

A = R − threshold. With the objective `sft`, which learns from positive advantages, this is rejection sampling: every turn whose
credit is above the threshold, also those of a task that the team always solves, which all other estimators here
leave out (no variance). STaR (arXiv 2203.14465, algorithm 1) and ReST^EM (2312.06585, eq. 5 and after) with verdicts of 0 and 1
keep what is right; ReST (2308.08998, section 3) raises its threshold from step to step.

With a policy gradient it is REINFORCE with a constant baseline: what is always solved still pushes. A turn at the very
threshold has no gradient.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from apps import records
from apps.records import Valued
from apps.training.advantages import groups


class Options(records.Options):
    """What is good enough."""

    threshold: float = Field(0.0, description="credit that a turn has to exceed, in the unit of credit")


def advantages(turns: Sequence[Valued], options: Options) -> np.ndarray:
    """One advantage a turn, float64 (len(turns),), in the unit of credit; NaN = no gradient."""
    above = groups.credits(turns) - options.threshold
    return np.where(np.abs(above) > groups.ROUNDING, above, np.nan)
