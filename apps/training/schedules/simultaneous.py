"""All agents are trained in every round, each on its own turns of the same plays.

The usual way (MALT, arXiv 2412.01928; AT-GRPO, arXiv 2510.11062). To each agent the others are a moving target: what a turn is
worth was measured beside policies that change in the same step.
"""

from __future__ import annotations

from collections.abc import Sequence

from apps import records
from apps.training.schedules.lineup import Lineup


class Options(records.Options):
    """Nothing to choose."""


def lineup(number: int, agents: Sequence[str], shards: int, seed: int, options: Options) -> Lineup:
    """Everyone."""
    return Lineup(tuple(agents))
