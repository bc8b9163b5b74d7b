"""A turn against others that its agent might have said in the same place (C3, arXiv 2603.06859), by replay.

What was said before a turn is frozen, and the turn alone is sampled again `siblings` times; later turns are reused where
their prompt is unchanged. A turn's value is its own outcome less the mean outcome of the others: a baseline that
leaves the turn out, so it is unbiased, and that shares all that came before, so it varies less than the group's.

Turns that were recorded after the very same words are siblings that cost nothing and are used first: branches of a
tree, and the first turns of independent plays. What came of a recorded turn is the mean over the traces that go on
from it.

This replaces a turn and removes nobody: an agent that always errs has siblings that err as well, and is worth 0.

Errors: the variance of the mean of the siblings, and that of the turn's own mean where several traces follow it. Its
single outcome is this trace's, and certain. Repeats share their random numbers; 0 is "not estimated". An agent's value
is the sum over its turns. Tasks outside the share get score − group mean.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Hashable, Mapping

import numpy as np
from pydantic import Field

from apps import records
from apps.credit import coalitions, groups, prefixes
from apps.credit.prefixes import Place
from apps.records import Credit, Graded, Group, Outcome, Replay

Context = Hashable  # the words before a turn, and the turn's path
Siblings = dict[
    Context, dict[Place, list[float]]
]  # what was recorded there -> outcomes of the traces that go on from it


class Options(records.Options):
    """How many alternatives a turn is compared with, and what they may cost."""

    siblings: int = Field(4, ge=1, description="alternatives to each turn, recorded ones first; 1 gives no errors")
    share: float = Field(1.0, ge=0, le=1, description="share of tasks replayed; the others get score - group mean")
    rounds: int = Field(0, ge=0, description="replay only in the first so many rounds, 0 = in all; the DAG reads it")


def asks(options: Options) -> bool:
    return options.share > 0


def assign(group: Group, options: Options) -> Generator[list[Replay], list[Outcome], list[Credit]]:
    """Each turn's outcome less that of its siblings; all are asked for at once, so that they batch."""
    scores, agents = groups.scores(group), groups.agents(group)
    if not coalitions.chosen(group.task.id, options.share):
        return coalitions.centred(group, scores, agents)
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
) -> Generator[list[Replay], list[Outcome], dict[Context, list[float]]]:
    """Outcomes of the siblings that are wanted beyond the recorded ones, by context.

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
    found: dict[Context, list[float]] = defaultdict(list)
    for (here, replay), outcome in zip(asked, came, strict=True):
        found[here].append(coalitions.check_outcome(outcome, group, replay))
    return found


def valued(
    graded: Graded, agents: tuple[str, ...], recorded: Siblings, sampled: Mapping[Context, list[float]]
) -> Credit:
    """The credit of one trace."""
    values, errors, notes = [], [], []
    for k, turn in enumerate(graded.trace.turns):
        here, own = context(graded, k), prefixes.place(graded.trace, k + 1)
        mine = recorded[here][own]
        others = [float(np.mean(came)) for said, came in recorded[here].items() if said != own] + sampled.get(here, [])
        value, error = advantage(mine, others)
        values.append(value)
        errors.append(error)
        notes.append(f"{turn.path}: {np.mean(mine):.2f}, against {np.mean(others):.2f} for {len(others)} others")
    return groups.summed(graded, agents, values, errors, tuple(notes))


def advantage(own: list[float], others: list[float]) -> tuple[float, float]:
    """The mean of a turn's own outcomes less the mean of its siblings', and the standard error of that."""
    means, errors = zip(*(prefixes.mean_and_error(np.array(scores)) for scores in (own, others)), strict=True)
    return means[0] - means[1], float(np.hypot(*errors))


def context(graded: Graded, turn: int) -> Context:
    return prefixes.beginning(graded.trace, turn), graded.trace.turns[turn].path
