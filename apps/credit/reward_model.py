"""A reward model scores every turn by itself: what an agent said, after the prompt that it was given.

Where RLHF's reward comes from (arXiv 2203.02155): by `head`, a turn is worth r(prompt, text) − `shift`, in the unit of the
scalar head; the paper shifts by the mean reward of demonstrations. By `word` or `reply` (a generative reward model) it is worth
the probability that the text is good. Of an ensemble, the members' rewards are combined, and their standard deviation is the
value's error; one model says nothing of its own error, so that is given as 0. See apps/scoring.py for the readings.

By default a scalar head reads each agent's own prompt, as it did in training, so every agent's turns can be scored. With a
`prompt` (and always by word or reply) the model reads the task's question and the text, so that only turns with an answer can be:
those of an agent whose duty is to check are worth 0. Not `process_reward`, which scores the whole play up to a step and pays
progress; and no replays: a reward model cannot see what a turn led to. An agent's value is the sum over its turns.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence

from pydantic import Field, model_validator

from apps import scoring
from apps.credit import groups
from apps.records import Credit, Finding, Graded, Group, Question, Reward, Rewarded, Turn


class Options(scoring.Options):
    """Who scores, what it reads, and what a score is worth."""

    shift: float = Field(0.0, description="by head: taken off every reward, such as the mean reward of good texts")
    squash: bool = Field(False, description="by head: a turn is worth the sigmoid of its reward, between 0 and 1")

    @model_validator(mode="after")
    def _reads_its_own_language(self) -> Options:
        if self.by == "head" and self.model and not self.prompt:
            raise ValueError(
                "a reward model with a base model of its own cannot read agents' prompts, which are in the team's chat "
                "template; give prompt, with {question}"
            )
        return self


def trained_by(options: Options) -> str:
    """The workflow that makes what has to be given; "" where nothing has to."""
    return "reward_model" if options.by == "head" and not options.model else ""


def asks(options: Options) -> bool:
    return True


def assign(group: Group, options: Options) -> Generator[list[Question], list[Finding], list[Credit]]:
    """The value of every turn, all asked for at once; what was said twice is asked once."""
    groups.scores(group)
    looks = [[look_at(group, turn, options) for turn in graded.trace.turns] for graded in group.graded]
    wanted = list(dict.fromkeys(question for trace in looks for look in trace for question in look))
    found: Mapping[Question, Finding] = dict(zip(wanted, (yield wanted), strict=True))
    agents = groups.agents(group)
    return [
        credit(graded, [[found[question] for question in look] for look in trace], agents, options)
        for graded, trace in zip(group.graded, looks, strict=True)
    ]


def look_at(group: Group, turn: Turn, options: Options) -> tuple[Question, ...]:
    """What is asked about a turn; nothing where it carries no answer and its own prompt is not read."""
    if options.by == "head" and not options.prompt:
        return (Reward(turn.prompt, (turn.text,), rendered=True),)
    if group.duties.get(turn.agent) == "check":
        return ()
    return tuple(scoring.asked(group.task.question, turn.text, options))


def credit(graded: Graded, found: Sequence[Sequence[Finding]], agents: Sequence[str], options: Options) -> Credit:
    """The credit of one trace, from the replies about each of its turns."""
    judged = [worth(replies, options) if replies else (0.0, 0.0) for replies in found]
    notes = tuple(
        f"{turn.path}: the reward model gives it {value:+.3f}" if replies else f"{turn.path}: no answer to score"
        for turn, replies, (value, _) in zip(graded.trace.turns, found, judged, strict=True)
    )
    return groups.summed(graded, agents, [value for value, _ in judged], [error for _, error in judged], notes)


def worth(replies: Sequence[Finding], options: Options) -> tuple[float, float]:
    """(value, its standard error) of one turn."""
    score = scoring.score(replies, options)
    if options.by != "head":
        return scoring.chance(score), 0.0
    rewards = [r[-1] for r in replies[0].rewards] if isinstance(replies[0], Rewarded) else [score]
    mean = math.fsum(rewards) / len(rewards)
    spread = math.sqrt(math.fsum((reward - mean) ** 2 for reward in rewards) / len(rewards))
    if not options.squash:
        return score - options.shift, spread
    value = scoring.chance(score - options.shift)
    return value, spread * value * (1 - value)  # by the sigmoid's slope
