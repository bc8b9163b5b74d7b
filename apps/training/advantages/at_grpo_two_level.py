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
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from apps import records
from apps.records import Valued
from apps.training.advantages import groups


class Options(records.Options):
    """How the two levels are mixed."""

    alpha: Annotated[float, Field(ge=0, le=1)] | Literal["adaptive"] = Field(
        0.5,
        description="weight of the agent level, the turn level has the rest; adaptive: by their variances in a task",
    )
    epsilon: float = Field(1e-6, ge=0, description="added to the standard deviation")


def advantages(turns: Sequence[Valued], options: Options) -> np.ndarray:
    """One advantage a turn, float64 (len(turns),); NaN = no gradient."""
    values = groups.credits(turns)
    keys, totals, place = [(turn.task, turn.agent) for turn in turns], *agent_totals(turns, values)
    tasks = [task for task, _, _ in place]
    by_agent = groups.normalised(totals, tasks, options.epsilon)
    by_turn = groups.normalised(values, keys, options.epsilon)
    weights = dict.fromkeys(tasks, options.alpha)
    if options.alpha == "adaptive":
        weights = adaptive(groups.centred(totals, tasks), tasks, groups.centred(values, keys), [t.task for t in turns])
    number = {pair: i for i, pair in enumerate(place)}
    of_turn = [number[turn.task, turn.trace, turn.agent] for turn in turns]
    alpha = np.array([weights[turn.task] for turn in turns], dtype=np.float64)
    return mixed(by_agent[of_turn], by_turn, alpha)


def agent_totals(turns: Sequence[Valued], values: np.ndarray) -> tuple[np.ndarray, list[tuple[str, str, str]]]:
    """What an agent's turns of one trace sum to, (m,), and (task, trace, agent) of each sum."""
    totals: dict[tuple[str, str, str], float] = {}
    for turn, value in zip(turns, values, strict=True):
        pair = (turn.task, turn.trace, turn.agent)
        totals[pair] = totals.get(pair, 0.0) + value
    return np.array(list(totals.values()), dtype=np.float64), list(totals)


def adaptive(
    agents: np.ndarray, agent_tasks: Sequence[str], turns: np.ndarray, turn_tasks: Sequence[str]
) -> dict[str, float]:
    """Each task's α, from both levels' centred values; NaN, a member that says nothing, is left out."""
    mine = {task: ([], []) for task in agent_tasks}
    for level, (values, tasks) in enumerate(((agents, agent_tasks), (turns, turn_tasks))):
        for value, task in zip(values, tasks, strict=True):
            if not np.isnan(value):
                mine[task][level].append(value)
    return {task: groups.portion(np.array(one), np.array(other)) for task, (one, other) in mine.items()}


def mixed(by_agent: np.ndarray, by_turn: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """The weighted sum of the levels that say something, by each turn's α, (n,); NaN where neither does."""
    levels, weights = np.stack([by_agent, by_turn]), np.stack([alpha, 1 - alpha])
    says = ~np.isnan(levels) & (weights > 0)
    return np.where(says.any(axis=0), np.where(says, weights * levels, 0.0).sum(axis=0), np.nan)
