"""AT-GRPO in two levels: an agent's credit against the task's other agents, mixed with its turns' against each other.

A = α · A_agent + (1 − α) · A_turn, each level normalised as (R − mean)/(std + ε), std with n − 1:

- A_agent: R is the sum of an agent's turn values in one trace, and the group is all (trace, agent) pairs of the task:
  its agents and its samples together. Every turn of the agent in that trace gets it.
- A_turn: R is the turn's own value, and the group is all turns of that agent on that task: every number and every
  sample.

A level without variance, of a single member or of weight 0 says nothing and is left out (it counts 0, its weight is
not given to the other); where both say nothing the turn gets NaN: no gradient. A sum over turns favours whoever
speaks more often, where values are positive. Source: the notes that this project started from; not the paper of arXiv
2510.11062, which is `at_grpo`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from apps import records
from apps.records import Valued
from apps.training.advantages import groups


class Options(records.Options):
    """How the two levels are mixed."""

    alpha: float = Field(0.5, ge=0, le=1, description="weight of the agent level; the turn level has the rest")
    epsilon: float = Field(1e-6, ge=0, description="added to the standard deviation")


def advantages(turns: Sequence[Valued], options: Options) -> np.ndarray:
    """One advantage a turn, float64 (len(turns),); NaN = no gradient."""
    values = groups.credits(turns)
    by_turn = groups.normalised(values, [(turn.task, turn.agent) for turn in turns], options.epsilon)
    return mixed(agent_level(turns, values, options.epsilon), by_turn, options.alpha)


def agent_level(turns: Sequence[Valued], values: np.ndarray, epsilon: float) -> np.ndarray:
    """A_agent of each turn, (n,): sums over the turns of one agent in one trace, normalised within the task."""
    totals: dict[tuple[str, str, str], float] = {}
    for turn, value in zip(turns, values, strict=True):
        pair = (turn.task, turn.trace, turn.agent)
        totals[pair] = totals.get(pair, 0.0) + value
    sums = np.array(list(totals.values()), dtype=np.float64)
    level = dict(zip(totals, groups.normalised(sums, [task for task, _, _ in totals], epsilon), strict=True))
    return np.array([level[turn.task, turn.trace, turn.agent] for turn in turns], dtype=np.float64)


def mixed(by_agent: np.ndarray, by_turn: np.ndarray, alpha: float) -> np.ndarray:
    """The weighted sum of the levels that say something; NaN where neither does."""
    levels, weights = np.stack([by_agent, by_turn]), np.array([[alpha], [1 - alpha]])
    says = ~np.isnan(levels) & (weights > 0)
    return np.where(says.any(axis=0), np.where(says, weights * levels, 0.0).sum(axis=0), np.nan)
