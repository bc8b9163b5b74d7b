"""One agent is trained in each round, in turn; the others stay as they are.

Round r trains agent (r − 1) mod n: block coordinate ascent on the team's reward, as a Gauss-Seidel sweep. What a turn is worth
holds while its agent learns, since nobody else moves; a round costs the plays of all and moves one.
"""

from __future__ import annotations

from collections.abc import Sequence

from apps import records
from apps.training.schedules.lineup import Lineup


class Options(records.Options):
    """Nothing to choose: agents come in the topology's order."""


def lineup(number: int, agents: Sequence[str], shards: int, seed: int, options: Options) -> Lineup:
    """The agent whose turn it is."""
    return Lineup((agents[(number - 1) % len(agents)],))
