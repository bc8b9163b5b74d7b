"""How a reward model is asked about a text, and what its reply is worth: what the verifier and the credit method share.

Three ways to read a score, `by`:

- `head`   a scalar head after the text's last token, trained by bradley_terry, outcome or process; a logit.
- `word`   how much likelier the model finds a good word than a bad one as its whole reply: log P(good) − log P(bad), whose
           sigmoid is the probability of "yes" in GenRM (arXiv 2408.15240, section 3.1).
- `reply`  the model writes its reasons, `samples` times, and each reply ends in the good word (1), the bad word (0) or a
           number between `lowest` and `highest`; the mean of those that can be read (GenRM-CoT, section 3.3, where the mean
           is over the probabilities of "yes"; here each reply counts as it ends).

All scores are logits, so that sigmoid is a probability and a difference the log-odds that one text beats another. Several
models are combined by their mean, their minimum (worst case), or the mean less `caution` times their variance
(arXiv 2310.02743, section 3: mean, WCO, UWO). Not a stage, not a leaf; it asks nothing itself.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Literal

from pydantic import Field, field_validator, model_validator

from apps import records
from apps.records import Consult, Finding, MeritError, Question, Rate, Rated, Reward, Rewarded, Said

LARGEST = 30.0  # a logit: beyond it a probability is 0 or 1 in float32
FIELDS = ("question", "text")


class Options(records.Options):
    """Who scores, what it reads, and how."""

    adapter: str = Field("", description="folder of a trained reward model, or of folders with one each: an ensemble")
    model: str = Field("", description="folder of the base model under it; default: the team's")
    by: Literal["head", "word", "reply"] = Field("head", description="a scalar head, the odds of a word, or replies")
    prompt: str = Field(
        "",
        description="template with {question}, and by word or reply {text}; default: SOLVE or CHECK of apps/scoring.py",
    )
    good: str = Field("VERDICT: CORRECT", min_length=1, description="by word or reply: what is said of a good text")
    bad: str = Field("VERDICT: INCORRECT", min_length=1, description="by word or reply: what is said of a bad text")
    samples: int = Field(4, ge=1, description="by reply: replies whose scores are averaged")
    temperature: float = Field(1.0, gt=0, description="by reply: of the replies")
    max_new_tokens: int = Field(256, ge=1, description="by reply: length of one at most")
    number: str = Field(
        r"SCORE:\s*([-+]?\d+(?:\.\d+)?)", description="by reply: pattern of a number, its group 1; the last one counts"
    )
    lowest: float = Field(0.0, description="by reply: the number of the worst text")
    highest: float = Field(10.0, description="by reply: the number of the best")
    combine: Literal["mean", "worst", "cautious"] = Field("mean", description="of an ensemble: what its rewards become")
    caution: float = Field(0.5, ge=0, description="cautious: the mean less this times the variance; a starting point")

    @field_validator("number")
    @classmethod
    def _a_pattern(cls, pattern: str) -> str:
        try:
            groups = re.compile(pattern).groups
        except re.error as error:
            raise ValueError(f"no regular expression: {error}") from error
        if groups < 1:
            raise ValueError("a pattern with a group around the number is expected, as in SCORE: (\\d+)")
        return pattern

    @model_validator(mode="after")
    def _fits(self) -> Options:
        if self.lowest >= self.highest:
            raise ValueError(f"lowest has to be below highest; given {self.lowest} and {self.highest}")
        try:
            self.template.format(**dict.fromkeys(FIELDS, ""))
        except (LookupError, ValueError, AttributeError) as error:
            raise ValueError(f"prompt: {error} cannot be filled in; it is offered {', '.join(FIELDS)}") from error
        if self.by != "head" and "{text}" not in self.template:
            raise ValueError(f"prompt: a model that judges by {self.by} has to be shown the {{text}}")
        return self

    @property
    def template(self) -> str:
        return self.prompt or (SOLVE if self.by == "head" else CHECK)


SOLVE = "Solve: {question}"  # a scalar head reads the text as the reply to what a solver is asked
CHECK = "Check: {question} Solution: {text}"  # one that judges is asked as a critic is


def asked(question: str, text: str, options: Options) -> list[Question]:
    """What is asked about one text."""
    prompt = options.template.format(question=question, text=text)
    if options.by == "head":
        return [Reward(prompt, (text,))]
    if options.by == "word":
        return [Rate(prompt, (options.good, options.bad))]
    return [Consult(prompt, (("question", question), ("draft", text)), repeat) for repeat in range(options.samples)]


def score(found: Sequence[Finding], options: Options) -> float:
    """The logit that the replies to `asked` come to; 0, even odds, where none of them can be read."""
    if isinstance(found[0], Rewarded):
        return combined([rewards[-1] for rewards in found[0].rewards], options)
    if isinstance(found[0], Rated):
        return _checked(found[0].nats[0] - found[0].nats[1])
    return share([read(said, options) for said in found])


def combined(rewards: Sequence[float], options: Options) -> float:
    """One reward from those of an ensemble."""
    mean = _checked(math.fsum(rewards) / len(rewards))
    if options.combine == "mean":
        return mean
    if options.combine == "worst":
        return min(rewards)
    return mean - options.caution * math.fsum((reward - mean) ** 2 for reward in rewards) / len(rewards)


def read(said: Said, options: Options) -> float | None:
    """What one reply says, between 0 and 1; None where it ends in no label and holds no number."""
    end = said.text.strip().removesuffix(".")
    if end.endswith(options.bad):  # first: a good word may be the end of the bad one
        return 0.0
    if end.endswith(options.good):
        return 1.0
    numbers = re.findall(options.number, said.text)
    if not numbers:
        return None
    number = float(numbers[-1] if isinstance(numbers[-1], str) else numbers[-1][0])
    return min(1.0, max(0.0, (number - options.lowest) / (options.highest - options.lowest)))


def share(opinions: Sequence[float | None]) -> float:
    """The logit of the mean opinion, drawn to even odds by half a reply on either side, as all of four prove nothing."""
    known = [opinion for opinion in opinions if opinion is not None]
    p = (math.fsum(known) + 0.5) / (len(known) + 1)
    return math.log(p / (1 - p))


def chance(logit: float) -> float:
    """σ, between 0 and 1."""
    return 1 / (1 + math.exp(-min(LARGEST, max(-LARGEST, logit))))


def _checked(logit: float) -> float:
    if not math.isfinite(logit):
        raise MeritError(
            f"the reward model gives the score {logit}, a number was expected; train it again with a lower training.lr, or take "
            "another adapter"
        )
    return logit
