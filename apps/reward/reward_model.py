"""A reward model's verdict: how good it finds an answer to the question, between 0 and 1.

The score is the sigmoid of what the model says (a scalar head), the probability of its good word, or the mean of its replies;
see apps/scoring.py. It needs no gold answer. A verdict is not the truth: agents that are trained on it learn what the reward
model likes, so figures are measured with the family's own verifier wherever the workflow can (arXiv 2210.10760 on what
happens otherwise). `shift` moves where right begins, as the rewards of bradley_terry have no zero of their own.

A model is asked about all texts of a shard at once, by the stages; `asked` says what, `verdict` what the reply comes to.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from apps import answer, scoring
from apps.records import Finding, MeritError, Question, Task, Verdict


class Options(scoring.Options):
    """Who judges, and where right begins."""

    shift: float = Field(0.0, description="the reward at which an answer is as good as not: its score is .5")


def trained_by(options: Options) -> str:
    """The workflow that makes what has to be given; "" where nothing has to."""
    return "reward_model" if options.by == "head" and not options.model else ""


def asked(task: Task, text: str, options: Options) -> list[Question]:
    """What the model is asked about a text."""
    return scoring.asked(task.question, text, options)


def verdict(text: str, found: Sequence[Finding], options: Options) -> Verdict:
    """The verdict that the replies come to."""
    score = scoring.chance(scoring.score(found, options) - options.shift)
    stated = answer.after(text) if answer.MARKER in text else text.strip()
    return Verdict(score, stated or None, f"the reward model finds it good with {score:.2f}")


def verify(task: Task, text: str, options: Options) -> Verdict:
    """Not by itself: a topology's Score has no model to ask."""
    raise MeritError(
        "verifier.name=reward_model asks a model, which the stages do for whole shards; a topology's Score cannot. Let the "
        "topology ask an agent, or name a verifier that computes"
    )


def check_gold(task: Task, options: Options) -> None:
    """A reward model reads no gold answer."""
