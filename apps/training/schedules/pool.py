"""Everyone is trained; part of each round is played with the others' policies of earlier rounds.

In a shard of the pool one agent, the learner, is as the team stands, and all others are as they were after an earlier round, drawn
alike from the pool (fictitious self-play, arXiv 1603.01121, in its uniform form as of population play). What a guest says is
trained on by nobody. An agent so learns not to lean on what its team mates, or opponents, happen to do at the time. Learners take
turns; who is drawn depends on the run's seed, the round and the shard alone. `share` and `window` are starting points.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from apps import records
from apps.records import MeritError
from apps.training.schedules.lineup import Lineup


class Options(records.Options):
    """How much is played with the past, and with how old a one."""

    share: float = Field(0.5, gt=0, le=1, description="of a round's shards that are played with past policies")
    window: int = Field(
        0, ge=0, description="the pool is that of the last so many rounds; 0: of all, and the untrained"
    )


def lineup(number: int, agents: Sequence[str], shards: int, seed: int, options: Options) -> Lineup:
    """Everyone is trained; the last shards are the pool's. The first round has no past."""
    count = int(options.share * shards + 1e-9)
    if not count:
        raise MeritError(
            f"schedule.share={options.share:g} of rollout.shards={shards} is not one shard; set rollout.shards to "
            f"{int(np.ceil(1 / options.share))} or more"
        )
    past = range(max(0, number - 1 - options.window) if options.window else 0, number - 1)
    if not past or len(agents) < 2:
        return Lineup(tuple(agents))
    usual = [{}] * (shards - count)
    return Lineup(tuple(agents), (*usual, *(_guests(number, agents, past, seed, i, count) for i in range(count))))


def _guests(number: int, agents: Sequence[str], past: range, seed: int, place: int, count: int) -> dict[str, int]:
    """Everyone but the learner, each with the policy of the same earlier round."""
    learner = agents[((number - 2) * count + place) % len(agents)]
    drawn = past[int(np.random.default_rng([seed, number, place]).integers(len(past)))]
    return {agent: drawn for agent in agents if agent != learner}
