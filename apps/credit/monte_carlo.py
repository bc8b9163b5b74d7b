"""Each turn is worth what it changed in the share of plays that, going on from there, end right.

The value of a beginning, V(k), is the mean score of `repeats` plays that go on from the first k turns, and V(T) is the trace's
own outcome; turn t is worth V(t + 1) − V(t). The values of a trace sum to its outcome less V(0). Source: the step values of
VinePPO (arXiv 2410.01679, section 4), with turns for steps. Unbiased, unlike a trained reward model, which
`process_reward` puts in its place to save the plays.

Left out: what removing an agent would do (`shapley`), and a culprit named (`first_error`).
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

import numpy as np
from pydantic import Field

from apps.credit import budget, groups, prefixes
from apps.credit.budget import Budget
from apps.records import Credit, Graded, Group, Outcome, Replay


class Options(Budget):
    """How often a beginning is played on, and what that may cost."""

    repeats: int = Field(8, ge=1, description="plays that go on from each beginning")


def asks(options: Options) -> bool:
    return options.share > 0


def assign(group: Group, options: Options) -> Generator[list[Replay], list[Outcome], list[Credit]]:
    """What each turn gained, with its standard error; an agent's value is the sum over its turns."""
    scores, agents = groups.scores(group), groups.agents(group)
    if not budget.chosen(group.task.id, options.share):
        return budget.centred(group, scores, agents)
    measured = yield from prefixes.measure(group, options.repeats)
    return [credit(graded, measured[i], agents) for i, graded in enumerate(group.graded)]


def credit(graded: Graded, scores: prefixes.Scores, agents: Sequence[str]) -> Credit:
    """The credit of one trace; `scores` (T + 1, R) are those behind V."""
    lost, errors = prefixes.drops(scores)
    gains = dict.fromkeys(agents, np.zeros(scores.shape[1]))
    for turn, row in zip(graded.trace.turns, scores[1:] - scores[:-1], strict=True):
        gains[turn.agent] = gains[turn.agent] + row
    totals = {agent: prefixes.mean_and_error(row) for agent, row in gains.items()}
    worth = scores.mean(axis=1)
    notes = [
        f"{turn.path}: right in {before:.0%} of the plays before it, in {after:.0%} after"
        for turn, before, after in zip(graded.trace.turns, worth, worth[1:], strict=False)
    ]
    return Credit(
        graded.trace.id,
        tuple(float(-drop) for drop in lost),
        tuple(errors.tolist()),
        {agent: mean for agent, (mean, _) in totals.items()},
        {agent: error for agent, (_, error) in totals.items()},
        tuple(notes),
        abs(float(-lost.sum() - (worth[-1] - worth[0]))),
    )
