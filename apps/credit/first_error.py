"""Blames the turn that made the answer wrong and rewards the one that mended it, by walking the trace.

The walk looks only at turns that carry an answer (those with a verdict of their own). A right answer that becomes
wrong was lost there: that turn is blamed. A wrong answer that becomes right was repaired there: that turn is
rewarded. A first answer that is wrong introduced the error itself, so a trace that never had the right answer blames
its first answer. Staying right, staying wrong and saying no answer are worth 0. Each spell of being wrong thus has
one culprit: after a repair a turn that loses the answer again is blamed anew, else breaking a mended answer would be
free.

Not a replay: it cannot see that a turn misled a later one (a critic's false alarm is the reviser's fault here).
Source: error tracing as in arXiv 2505.00212 (which agent, which step), with verdicts in place of a judge.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

from pydantic import Field

from apps import records
from apps.credit import groups
from apps.records import Credit, Graded, Group, MeritError, Outcome, Replay

EVENTS = {(None, False): "introduced", (True, False): "lost", (False, True): "repaired"}  # (before, now)


class Options(records.Options):
    """What an error and a repair are worth."""

    blame: float = Field(-1.0, ge=-1, le=0, description="value of the turn that made the answer wrong")
    repair: float = Field(0.5, ge=0, le=1, description="value of a turn that made a wrong answer right")


def asks(options: Options) -> bool:
    return False


def assign(group: Group, options: Options) -> Generator[list[Replay], list[Outcome], list[Credit]]:
    """Blame and repair for each trace by itself; an agent's value is the sum over its turns."""
    yield from ()
    groups.scores(group)
    agents = groups.agents(group)
    return [judge(graded, agents, options) for graded in group.graded]


def walk(right: Sequence[bool | None]) -> list[str]:
    """What each turn did to the answer: "introduced", "lost", "repaired" or "" (None = it carries no answer)."""
    events, before = [], None
    for now in right:
        events.append("" if now is None else EVENTS.get((before, now), ""))
        before = before if now is None else now
    return events


def judge(graded: Graded, agents: tuple[str, ...], options: Options) -> Credit:
    """The credit of one trace."""
    turns = graded.trace.turns
    if len(graded.turn_verdicts) != len(turns):
        raise MeritError(
            f"first_error: trace {graded.trace.id!r} has {len(turns)} turns and {len(graded.turn_verdicts)} turn "
            "verdicts, one a turn was expected; grade it again"
        )
    events = walk([None if verdict is None else verdict.right for verdict in graded.turn_verdicts])
    worth = {"": 0.0, "introduced": options.blame, "lost": options.blame, "repaired": options.repair}
    values = tuple(worth[event] for event in events)
    totals = dict.fromkeys(agents, 0.0)
    for turn, value in zip(turns, values, strict=True):
        totals[turn.agent] += value
    return Credit(graded.trace.id, values, (0.0,) * len(turns), totals, {}, notes(graded, events))


def notes(graded: Graded, events: list[str]) -> tuple[str, ...]:
    """One sentence for each turn that changed the answer, or why nobody is blamed."""
    said = {"introduced": "gave the first answer and it was wrong", "lost": "lost the right answer"}
    said["repaired"] = "repaired the answer"
    found = [f"{turn.path} {said[e]}" for turn, e in zip(graded.trace.turns, events, strict=True) if e]
    if found:
        return tuple(found)
    answered = any(verdict is not None for verdict in graded.turn_verdicts)
    return ("every answer was right: nobody to blame" if answered else "no turn gave an answer: nobody to blame",)
