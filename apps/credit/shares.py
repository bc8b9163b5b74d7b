"""From the values of a game's players, agents or single turns, to the credit of a trace. Not a method."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache

from apps.records import Credit, Graded


def shared_out(
    graded: Graded,
    team: Sequence[str],
    value: Mapping[str, float],
    error: Mapping[str, float],
    notes: tuple[str, ...] = (),
    residual: float | None = None,
) -> Credit:
    """The credit of a trace from values by agent, or by path of a turn.

    By agent: its turns share its value equally. By path: an agent's value is the sum over its turns of the game, and
    its error the sum of theirs, which it cannot exceed.
    """
    owners = [turn.path if turn.path in value else turn.agent for turn in graded.trace.turns]
    counts = Counter(owners)
    agents, agent_errors = dict.fromkeys(team, 0.0), dict.fromkeys(team, 0.0)
    for player in value:
        agent = player if player in agents else role_of(player)
        agents[agent] += value[player]
        agent_errors[agent] += error[player]
    return Credit(
        graded.trace.id,
        tuple(value[owner] / counts[owner] for owner in owners),
        tuple(error[owner] / counts[owner] for owner in owners),
        agents,
        agent_errors,
        notes,
        residual,
    )


@cache
def role_of(player: str) -> str:
    """The agent of a path, "nested.0/critic.1" to "critic"; an agent's own name stays as it is."""
    name = player.rsplit("/", 1)[-1]
    role, dot, ordinal = name.rpartition(".")
    return role if dot and ordinal.isdigit() else name
