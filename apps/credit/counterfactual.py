"""A turn against others that its agent might have said in the same place (C3, arXiv 2603.06859), by replay.

What was said before a turn is frozen, and the turn alone is sampled again `siblings` times; later turns are reused where
their prompt is unchanged. A turn's value is its own outcome less the mean outcome of the others: a baseline that
leaves the turn out, so it is unbiased, and that shares all that came before, so it varies less than the group's.

Turns that were recorded after the very same words are siblings that cost nothing and are used first: branches of a
tree, and the first turns of independent plays. What came of words is the mean over all plays that go on from them, of
recorded turns and of sampled ones: siblings that say the same are worth the same, whatever luck those after them had. A
sampled turn that repeats recorded words tells nothing new of them, since what followed is reused.

This replaces a turn and removes nobody: an agent that always errs has siblings that err as well, and is worth 0.

Errors: the variance of the mean of the siblings, as if none of them repeated another, and that of the mean of the turn's
own words where several traces follow them. A single outcome is this trace's, and certain. Repeats share their random
numbers; 0 is "not estimated". An agent's value is the sum over its turns. Tasks outside the share get score − group mean.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Hashable, Mapping, Sequence

import numpy as np
from pydantic import Field

from apps.credit import budget, groups, prefixes
from apps.credit.budget import Budget
from apps.credit.prefixes import Place
from apps.records import Credit, Graded, Group, Outcome, Replay

Context = Hashable  # the words before a turn, and the turn's path
Siblings = dict[Context, dict[Place, list[float]]]  # what was recorded there -> outcomes of the traces that go on
Draw = tuple[str, float]  # what a sampled sibling said, and its outcome


class Options(Budget):
    """How many alternatives a turn is compared with, and what they may cost."""

    siblings: int = Field(4, ge=1, description="alternatives to each turn, recorded ones first; 1 gives no errors")


def asks(options: Options) -> bool:
    return options.share > 0


def assign(group: Group, options: Options) -> Generator[list[Replay], list[Outcome], list[Credit]]:
    """Each turn's outcome less that of its siblings; all are asked for at once, so that they batch."""
    scores, agents = groups.scores(group), groups.agents(group)
    if not budget.chosen(group.task.id, options.share):
        return budget.centred(group, scores, agents)
    recorded = siblings(group)
    sampled = yield from sample(group, recorded, options.siblings)
    return [valued(graded, agents, recorded, sampled) for graded in group.graded]


def siblings(group: Group) -> Siblings:
    """All that was recorded in each context."""
    found: Siblings = defaultdict(lambda: defaultdict(list))
    for graded, score in zip(group.graded, groups.scores(group), strict=True):
        for k in range(len(graded.trace.turns)):
            found[context(graded, k)][prefixes.place(graded.trace, k + 1)].append(score)
    return found


def sample(
    group: Group, recorded: Siblings, wanted: int
) -> Generator[list[Replay], list[Outcome], dict[Context, list[Draw]]]:
    """The siblings that are wanted beyond the recorded ones, by context.

    They are asked for the trace of the least id that has the context, so that the group's order does not matter.
    """
    asked: list[tuple[Context, Replay]] = []
    done: set[Context] = set()
    for i in sorted(range(len(group.graded)), key=lambda i: group.graded[i].trace.id):
        for k in range(len(group.graded[i].trace.turns)):
            here = context(group.graded[i], k)
            missing = 0 if here in done else wanted - (len(recorded[here]) - 1)
            asked += [(here, Replay(i, keep=k, fresh="next", repeat=r)) for r in range(missing)]
            done.add(here)
    came = (yield [replay for _, replay in asked]) if asked else []
    found: dict[Context, list[Draw]] = defaultdict(list)
    for (here, replay), outcome in zip(asked, came, strict=True):
        found[here].append((outcome.text, groups.score_of(outcome, group, replay)))
    return found


def valued(
    graded: Graded, agents: tuple[str, ...], recorded: Siblings, sampled: Mapping[Context, list[Draw]]
) -> Credit:
    """The credit of one trace."""
    values, errors, notes = [], [], []
    for k in range(len(graded.trace.turns)):
        here, own = context(graded, k), prefixes.place(graded.trace, k + 1)
        value, error, note = advantage(own, recorded[here], sampled.get(here, []))
        values.append(value)
        errors.append(error)
        notes.append(f"{graded.trace.turns[k].path}: {note}")
    return groups.summed(graded, agents, values, errors, tuple(notes))


def advantage(own: Place, recorded: Mapping[Place, list[float]], sampled: Sequence[Draw]) -> tuple[float, float, str]:
    """What came of a turn's words less the mean of what came of its siblings', its standard error, and both in words."""
    worth = outcomes(recorded, sampled)
    others = [words(place) for place in recorded if place != own] + [said for said, _ in sampled]
    apart = [float(np.mean(came)) for place, came in recorded.items() if place != own] + [came for _, came in sampled]
    mine, error = prefixes.mean_and_error(np.array(worth[words(own)]))
    theirs = float(np.mean([np.mean(worth[said]) for said in others]))
    error = float(np.hypot(error, prefixes.mean_and_error(np.array(apart))[1]))
    return mine - theirs, error, f"{mine:.2f}, against {theirs:.2f} for {len(others)} others"


def outcomes(recorded: Mapping[Place, list[float]], sampled: Sequence[Draw]) -> dict[str, list[float]]:
    """All that came of each wording in one context."""
    found: dict[str, list[float]] = defaultdict(list)
    for place, came in recorded.items():
        found[words(place)] += came
    known = set(found)
    for said, came in sampled:
        if said not in known:
            found[said].append(came)
    return found


def words(place: Place) -> str:
    return place[-1][2]


def context(graded: Graded, turn: int) -> Context:
    return prefixes.beginning(graded.trace, turn), graded.trace.turns[turn].path
