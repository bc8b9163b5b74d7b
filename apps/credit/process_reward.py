"""A trained reward model scores every step; a turn is worth the progress that it made.

The model reads the question and the turns up to and including a step, and the score of the step is how likely it then finds
the good label rather than the bad one: softmax of their two log-likelihoods, as in Math-Shepherd (arXiv 2312.08935, section
3.3; there one token stands for each label, here any text). A turn is worth score_t − score_(t−1), the first one against the
bare question, so that the values of a trace sum to what the team had gained by its end; or, with `delta: false`, 2 · score − 1.

`workflows/process_reward.py` trains one; its labels are the shares of plays that, going on from a step, end right. It asks for
no replays, so it is cheap; it is as good as its training, and drifts from a team that is trained on. It says nothing of
its own error, so that is given as 0.

That is `by: word`: every step is read anew, and the model's log-probabilities are all there is. `by: head` reads a whole play once:
the question is the prompt, the steps are one completion, and a scalar head says after each of them how good the work is so far
(its sigmoid; the objective `process`, arXiv 2305.20050). `opening` is the completion's beginning, after which the head scores the
bare question.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from typing import Literal

from pydantic import Field

from apps import records, scoring
from apps.credit import groups
from apps.records import Credit, Finding, Graded, Group, MeritError, Question, Rate, Rated, Reward, Rewarded, Trace


class Options(records.Options):
    """Who scores, and what it reads."""

    adapter: str = Field("", description="folder of a trained reward model, an adapter in PEFT format")
    model: str = Field("", description="folder of the base model under it; default: the team's")
    by: Literal["word", "head"] = Field("word", description="the odds of a label after each step, or a scalar head")
    delta: bool = Field(True, description="a turn is worth the change of the score; false: 2 · score − 1")
    prompt: str = Field("Check: {question}{steps}", description="template with {question} and {steps}")
    said: str = Field(" Solution: ", description="what stands before each turn among the steps")
    checked: str = Field(" Critique: ", description="the same before the turns of those who check")
    opening: str = Field(
        "Solution:", min_length=1, description="by head: what the completion begins with, before any step"
    )
    good: str = Field("VERDICT: CORRECT", min_length=1, description="what the model says after a good step")
    bad: str = Field("VERDICT: INCORRECT", min_length=1, description="what it says after a bad one")


def trained_by(options: Options) -> str:
    """The workflow that makes what has to be given."""
    return "process_reward"


def asks(options: Options) -> bool:
    return True


def assign(group: Group, options: Options) -> Generator[list[Question], list[Finding], list[Credit]]:
    """The value of every turn; an agent's value is the sum over its turns."""
    groups.scores(group)
    scored = yield from scores(group, options)
    agents = groups.agents(group)
    return [credit(graded, found, agents, options) for graded, found in zip(group.graded, scored, strict=True)]


def scores(group: Group, options: Options) -> Generator[list[Question], list[Finding], list[list[float]]]:
    """T + 1 scores of each trace: of the bare question, then of each step. What begins alike is read once."""
    asked = [questions(group, graded.trace, options) for graded in group.graded]
    wanted = list(dict.fromkeys(question for about in asked for question in about))
    found = dict(zip(wanted, (yield wanted), strict=True))
    return [[one for question in about for one in read(found[question])] for about in asked]


def questions(group: Group, trace: Trace, options: Options) -> list[Question]:
    """About the bare question, then about each step; by head all in one."""
    if options.by == "head":
        return [Reward(prompt(group, trace, 0, options), (options.opening, *steps(group, trace, options)))]
    labels = (options.good, options.bad)
    return [Rate(prompt(group, trace, keep, options), labels) for keep in range(len(trace.turns) + 1)]


def read(found: Finding) -> list[float]:
    """The scores that a reply holds; those of an ensemble are averaged as logits."""
    if isinstance(found, Rewarded):
        members = len(found.rewards)
        return [_checked(scoring.chance(math.fsum(said) / members)) for said in zip(*found.rewards, strict=True)]
    return [score(found)]


def prompt(group: Group, trace: Trace, keep: int, options: Options) -> str:
    """What the model reads of the first `keep` turns."""
    read = "".join(steps(group, trace, options)[:keep])
    return options.prompt.format(question=group.task.question, steps=read)


def steps(group: Group, trace: Trace, options: Options) -> list[str]:
    """Each turn, with what stands before it."""
    checks = (group.duties.get(turn.agent) == "check" for turn in trace.turns)
    return [
        (options.checked if check else options.said) + turn.text
        for check, turn in zip(checks, trace.turns, strict=True)
    ]


def score(rated: Rated) -> float:
    """The probability of the good label among the two."""
    good, bad = rated.nats
    if not math.isfinite(bad - good):
        raise MeritError(
            f"credit.process_reward: the reward model gives its labels the log-probabilities {good} and {bad}, numbers "
            "were expected; train it again (workflow process_reward), or take another adapter"
        )
    return 1 / (1 + math.exp(min(bad - good, 700.0)))  # beyond it a float has no such power


def _checked(share: float) -> float:
    if not math.isfinite(share):
        raise MeritError(
            f"credit.process_reward: the scalar head gives {share}, a number was expected; train it again with a lower lr"
        )
    return share


def values(scored: Sequence[float], delta: bool) -> list[float]:
    """Of T turns from T + 1 scores, the bare question's first."""
    return [after - before if delta else 2 * after - 1 for before, after in zip(scored, scored[1:], strict=False)]


def credit(graded: Graded, scored: Sequence[float], agents: Sequence[str], options: Options) -> Credit:
    """The credit of one trace."""
    worth = values(scored, options.delta)
    totals = dict.fromkeys(agents, 0.0)
    for turn, value in zip(graded.trace.turns, worth, strict=True):
        totals[turn.agent] += value
    notes = [
        f"{turn.path}: the reward model's score went from {before:.2f} to {after:.2f}"
        for turn, before, after in zip(graded.trace.turns, scored, scored[1:], strict=False)
    ]
    return Credit(graded.trace.id, tuple(worth), (0.0,) * len(worth), totals, {}, tuple(notes))
