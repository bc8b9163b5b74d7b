"""Blames the turn that made the answer wrong and rewards the one that mended it, by walking the trace or by replay.

`by: walk` looks only at turns that carry an answer (those with a verdict of their own). A right answer that becomes
wrong was lost there: that turn is blamed. A wrong answer that becomes right was repaired there: that turn is
rewarded. A first answer that is wrong introduced the error itself, so a trace that never had the right answer blames
its first answer. Staying right, staying wrong and saying no answer are worth 0. Each spell of being wrong thus has
one culprit: after a repair a turn that loses the answer again is blamed anew, else breaking a mended answer would be
free. It cannot see that a turn misled a later one (a critic's false alarm is the reviser's fault here).

`by: replay` can: V(k) is what the first k turns are worth (prefixes.py). On a failure the turn that lost most for good
is worth blame · loss; where no loss is sure, the walk decides. A drop of V that was regained before the end, on a
failure or a success, cost the team nothing but the repair, and is worth only `mended` of that: a success blames
nobody by more than blame · mended, however unlikely it was. The largest rise after the largest drop is worth repair · rise.
Either is left out unless it is `least` and 2 standard errors from 0. Tasks outside the share are walked.

That nobody is blamed by more than .1 on a success is so by construction (`mended`), and no sign of skill: count blame
on successes by its sign, or with mended = 1, to see how often chance looks like an error that was mended.

Source: error tracing as in arXiv 2505.00212 (which agent, which step), with verdicts or replays in place of a judge.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from apps.credit import budget, groups, prefixes
from apps.credit.budget import Budget
from apps.credit.prefixes import Loss
from apps.records import Credit, Graded, Group, MeritError, Outcome, Replay

EVENTS = {(None, False): "introduced", (True, False): "lost", (False, True): "repaired"}  # (before, now)


class Options(Budget):
    """How the error is found, and what an error and a repair are worth."""

    by: Literal["walk", "replay"] = Field("walk", description="by the verdicts of the trace's turns, or by replay")
    blame: float = Field(-1.0, ge=-1, le=0, description="value of the turn that made the answer wrong")
    repair: float = Field(0.5, ge=0, le=1, description="value of a turn that made a wrong answer right")
    mended: float = Field(0.1, ge=0, le=1, description="share of the blame for an error that was mended; replay only")
    repeats: int = Field(8, ge=2, description="replays from each beginning of a trace")
    least: float = Field(0.25, gt=0, le=1, description="the least change of the team's score that is told from noise")
    share: float = Field(1.0, ge=0, le=1, description="share of tasks replayed; the others are walked")


def asks(options: Options) -> bool:
    return options.by == "replay" and options.share > 0


def assign(group: Group, options: Options) -> Generator[list[Replay], list[Outcome], list[Credit]]:
    """Blame and repair for each trace by itself; an agent's value is the sum over its turns."""
    groups.scores(group)
    agents = groups.agents(group)
    walked = [judge(graded, agents, options) for graded in group.graded]
    if not asks(options) or not budget.chosen(group.task.id, options.share):
        return walked
    measured = yield from prefixes.measure(group, options.repeats)
    blamed = yield from prefixes.blame(group, measured, options.repeats, options.least)
    return [
        walk_ if i in blamed and blamed[i] is None else replayed(graded, agents, measured[i], blamed.get(i), options)
        for i, (graded, walk_) in enumerate(zip(group.graded, walked, strict=True))
    ]


def walk(right: Sequence[bool | None]) -> list[str]:
    """What each turn did to the answer: "introduced", "lost", "repaired" or "" (None = it carries no answer)."""
    events, before = [], None
    for now in right:
        events.append("" if now is None else EVENTS.get((before, now), ""))
        before = before if now is None else now
    return events


def judge(graded: Graded, agents: tuple[str, ...], options: Options) -> Credit:
    """The credit of one trace, by the walk."""
    turns = graded.trace.turns
    if len(graded.turn_verdicts) != len(turns):
        raise MeritError(
            f"first_error: trace {graded.trace.id!r} has {len(turns)} turns and {len(graded.turn_verdicts)} turn "
            "verdicts, one a turn was expected; grade it again"
        )
    events = walk(prefixes.answered(graded))
    worth = {"": 0.0, "introduced": options.blame, "lost": options.blame, "repaired": options.repair}
    values = [worth[event] for event in events]
    return groups.summed(graded, agents, values, [0.0] * len(turns), notes(graded, events))


def replayed(
    graded: Graded, agents: tuple[str, ...], scores: prefixes.Scores, lost: Loss | None, options: Options
) -> Credit:
    """The credit of one trace, by replay; `lost` is the loss that was never regained."""
    sizes, sizes_errors = prefixes.drops(scores)
    values, errors = np.zeros((2, len(graded.trace.turns)))
    said = []
    drop = prefixes.locate(sizes, sizes_errors, options.least)
    if drop is not None and (rise := prefixes.locate(-sizes, sizes_errors, options.least, drop + 1)) is not None:
        if lost is None or lost.turn != drop:
            values[drop], errors[drop] = options.mended * options.blame * np.array([sizes[drop], -sizes_errors[drop]])
            said.append(f"{path(graded, drop)} {event(graded, drop)}, which was repaired: V fell by {sizes[drop]:.2f}")
        values[rise], errors[rise] = options.repair * np.array([-sizes[rise], sizes_errors[rise]])
        said.append(f"{path(graded, rise)} repaired it: V rose by {-sizes[rise]:.2f}")
    if lost is not None:
        values[lost.turn], errors[lost.turn] = options.blame * lost.size, -options.blame * lost.error
        said.append(f"{path(graded, lost.turn)} {event(graded, lost.turn)}, for good: the team lost {lost}")
    return groups.summed(graded, agents, values, errors, tuple(said or ["no turn lost the answer: nobody to blame"]))


def event(graded: Graded, turn: int) -> str:
    """What a turn that lowered V did, by the verdicts on the answers."""
    verdicts = {"introduced": "introduced an error", "lost": 'turned ("repaired") a right answer into a wrong one'}
    return verdicts.get(walk(prefixes.answered(graded))[turn], "led the team astray")


def path(graded: Graded, turn: int) -> str:
    return graded.trace.turns[turn].path


def notes(graded: Graded, events: list[str]) -> tuple[str, ...]:
    """One sentence for each turn that changed the answer, or why nobody is blamed."""
    said = {"introduced": "gave the first answer and it was wrong", "lost": "lost the right answer"}
    said["repaired"] = "repaired the answer"
    found = [f"{turn.path} {said[e]}" for turn, e in zip(graded.trace.turns, events, strict=True) if e]
    if found:
        return tuple(found)
    answered = any(verdict is not None for verdict in graded.turn_verdicts)
    return ("every answer was right: nobody to blame" if answered else "no turn gave an answer: nobody to blame",)
