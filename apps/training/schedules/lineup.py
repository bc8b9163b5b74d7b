"""What a schedule says of a round. A schedule is a pure function of the round's number, so a plan knows all of them beforehand.

`lineup(number, agents, shards, seed, options) -> Lineup`: `number` counts rounds from 1, `agents` have policies of their own, in
the topology's order, `shards` is how many parts a round's tasks are played in, `seed` is the run's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Lineup:
    """Who is trained in a round, and with whom each shard of its tasks is played."""

    trains: tuple[str, ...]  # the agents that are trained, in the topology's order
    guests: tuple[Mapping[str, int], ...] = ()  # of each shard: agent -> the round whose policy it has (0 = untrained)

    def guests_of(self, shard: int) -> Mapping[str, int]:
        """Who speaks in a shard with a policy of an earlier round; everyone else as the team stands."""
        return self.guests[shard] if shard < len(self.guests) else {}
