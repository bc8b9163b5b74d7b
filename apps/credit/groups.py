"""What every credit method reads of a group: its scores, checked, and the names of its agents. Not a method."""

from __future__ import annotations

import math

from apps.records import Group, MeritError


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


def agents(group: Group) -> tuple[str, ...]:
    """The team's agents: its roles, then whoever else spoke in any trace."""
    spoke = [agent for graded in group.graded for agent in graded.trace.agents]
    return tuple(dict.fromkeys([*group.roles, *spoke]))
