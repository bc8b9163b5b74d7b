"""What each turn was worth, by replay at a high repeat count: the yardstick, too dear for training.

It is `monte_carlo` with many repeats and random numbers of its own, from FIRST on, which no method reaches. Named by its
module, as it is no rival of those that it judges.
"""

from __future__ import annotations

from collections.abc import Generator

from pydantic import Field

from apps import records
from apps.credit import groups, monte_carlo, prefixes
from apps.records import Credit, Group, Outcome, Replay

FIRST = 1_000_000  # number of the first repeat


class Options(records.Options):
    """How sure it is."""

    repeats: int = Field(64, ge=2, description="continuations of each prefix")


def asks(options: Options) -> bool:
    return True


def assign(group: Group, options: Options) -> Generator[list[Replay], list[Outcome], list[Credit]]:
    """What each turn gained in the share of plays that go on from it and end right."""
    groups.scores(group)
    measured = yield from prefixes.measure(group, options.repeats, first=FIRST)
    agents = groups.agents(group)
    return [monte_carlo.credit(graded, measured[i], agents) for i, graded in enumerate(group.graded)]
