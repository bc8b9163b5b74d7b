"""What every credit method reads of a group: its scores, checked, and its agents; and how turns make up an agent's value.

Not a method.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from apps.records import Credit, Graded, Group, MeritError, Outcome, Replay


def scores(group: Group) -> list[float]:
    """The score of each trace. MeritError where there is none: credit for an ungraded trace would be made up."""
    if not group.graded:
        raise MeritError(
            f"credit: task {group.task.id!r} has no traces; credit needs at least one graded trace a task: "
            "run the rollout again or leave the task out"
        )
    for graded in group.graded:
        score = graded.verdict.score if graded.verdict is not None else None
        if score is None or not math.isfinite(score):
            raise MeritError(
                f"credit: trace {graded.trace.id!r} has the score {score}, a number was expected; "
                "grade it before credit is assigned, with a verifier that gives every answer a score (0 if unreadable)"
            )
    return [float(score) for score in group.scores]


def score_of(outcome: Outcome, group: Group, replay: Replay) -> float:
    """The score of a replay, checked likewise."""
    if not math.isfinite(outcome.score):
        raise MeritError(
            f"credit: a replay of {group.graded[replay.trace].trace.id!r} has the score {outcome.score}, a number was "
            "expected; take a verifier that gives every answer a score (0 if unreadable)"
        )
    return float(outcome.score)


def agents(group: Group) -> tuple[str, ...]:
    """The team's agents: its roles, then whoever else spoke in any trace."""
    spoke = [agent for graded in group.graded for agent in graded.trace.agents]
    return tuple(dict.fromkeys([*group.roles, *spoke]))


def summed(
    graded: Graded,
    agents: Sequence[str],
    values: Sequence[float],
    errors: Sequence[float],
    notes: tuple[str, ...] = (),
    residual: float | None = None,
) -> Credit:
    """Credit whose agents are worth the sum of their turns, with the error of a sum of independent ones."""
    totals, variances = dict.fromkeys(agents, 0.0), dict.fromkeys(agents, 0.0)
    for turn, value, error in zip(graded.trace.turns, values, errors, strict=True):
        totals[turn.agent] += float(value)
        variances[turn.agent] += float(error) ** 2
    agent_errors = {agent: math.sqrt(variance) for agent, variance in variances.items()}
    turns = tuple(map(float, values)), tuple(map(float, errors))
    return Credit(graded.trace.id, *turns, totals, agent_errors, notes, residual)
