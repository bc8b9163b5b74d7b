"""Who is trained in a round, and who plays its tasks: what the schedule says, as nodes of the plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from apps import leaf, stages
from apps.training.schedules.lineup import Lineup
from workflows.plan import Node
from workflows.steps import Steps


def lineup(steps: Steps, number: int) -> Lineup:
    """What the schedule says of a round of the stage, the first of which is 1. Scripted agents are not trained."""
    if not steps.trains:
        return Lineup(())
    config = steps.config
    module, options = (
        leaf.find("training/schedules", config.schedule["name"]),
        leaf.options("training/schedules", config.schedule),
    )
    return module.lineup(number, steps.owners, config.rollout.shards, config.seed, options)


def casts(steps: Steps, teams: Sequence[Node], chosen: Lineup) -> list[Node]:
    """Who plays each shard: the last of `teams`, some agents perhaps with their policies of earlier rounds.

    `teams` holds the team that the stage began with, then the one that each round left.
    """
    return [_cast(steps, teams, chosen.guests_of(shard)) for shard in range(steps.config.rollout.shards)]


def _cast(steps: Steps, teams: Sequence[Node], guests: Mapping[str, int]) -> Node:
    """Agents that share a guest's policy are guests too."""
    team = teams[-1]
    for number in sorted(set(guests.values())):
        owners = [agent for agent, of in guests.items() if of == number]
        together = [agent for agent in steps.agents if steps.share.get(agent, agent) in owners]
        team = steps.add(stages.CAST, {"policies": team, "past": teams[number]}, guests=together)
    return team
