"""Iterated best response: one agent is trained for some rounds against the others as they are, then the next.

As `alternating`, but each agent comes near its best answer to the others before anyone else moves (Cournot's process; the inner
loop of PSRO, arXiv 1711.00832, with the latest policies alone in place of its mixture: `pool` has past ones). `rounds` is a
starting point, not a published value.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from apps import records
from apps.training.schedules.lineup import Lineup


class Options(records.Options):
    """How long an agent has for its answer."""

    rounds: int = Field(2, ge=1, description="rounds that an agent is trained for before the next one is")


def lineup(number: int, agents: Sequence[str], shards: int, seed: int, options: Options) -> Lineup:
    """The agent whose turn it is."""
    return Lineup((agents[(number - 1) // options.rounds % len(agents)],))
