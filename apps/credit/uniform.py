"""Everyone gets the team's reward: each turn of a trace is worth the trace's score.

The baseline to beat: it cannot tell a critic that helped from one that was in the way. It asks for no replays.
"""

from __future__ import annotations

from collections.abc import Generator

from apps import records
from apps.credit import groups
from apps.records import Credit, Graded, Group, Outcome, Replay


class Options(records.Options):
    """There is nothing to set."""


def asks(options: Options) -> bool:
    return False


def assign(group: Group, options: Options) -> Generator[list[Replay], list[Outcome], list[Credit]]:
    """The trace's score for each of its turns and for every agent, also one that did not speak."""
    yield from ()
    agents = groups.agents(group)
    return [equal(graded, score, agents) for graded, score in zip(group.graded, groups.scores(group), strict=True)]


def equal(graded: Graded, score: float, agents: tuple[str, ...]) -> Credit:
    turns = len(graded.trace.turns)
    note = f"the team's answer scored {score:g}; every turn is given that"
    return Credit(graded.trace.id, (score,) * turns, (0.0,) * turns, dict.fromkeys(agents, score), {}, (note,))
