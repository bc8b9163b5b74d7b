"""A model says which of two answers keeps better to a written constitution: preference labels without people.

Constitutional AI (arXiv 2212.08073, section 4.1: the model is shown a principle and both answers, and its probabilities of the
two labels are the preference) and RLAIF (arXiv 2309.00267, section 2: every pair is asked about in both orders and the
preferences are averaged, since models favour a place). By `word` the probabilities of the two labels are read; by `reply` the
model reasons first and ends in a label, `samples` times.

A prompt that shows one answer (`{text}`) has each judged by itself, as apps/scoring.py reads `word` and `reply`: the preference
is the sigmoid of the scores' difference. That suits a model that was trained to check and not to compare. Labels are worth what
they agree with: `agreement.py` compares them with a set that people, or verifiers, have labelled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from apps import scoring
from apps.preference.pairs import Pair
from apps.records import Consult, Finding, MeritError, Question, Rate, Rated, digest

CONSTITUTION = Path(__file__).with_name("constitution.md")
COMPARE = """You compare two answers to one task, by these principles alone:
{constitution}

Task: {question}

Answer 1: {first}

Answer 2: {second}

Which answer keeps to the principles better? """
ENDS = {"word": 'Reply with "1" or "2" only.', "reply": 'Reason briefly, then end with "BETTER: 1" or "BETTER: 2".'}
FIELDS = ("constitution", "question", "first", "second", "text")


class Options(scoring.Options):
    """Who judges, by what, and how it is asked."""

    by: Literal["word", "reply"] = Field("word", description="the odds of two labels, or replies that end in one")
    prompt: str = Field(
        "",
        description="template with {constitution} {question} {first} {second}, or {text}; default: COMPARE of judge.py",
    )
    constitution: str = Field(
        "", description="a file of principles, one a line that begins with -; default: Merit's own"
    )
    principles: Literal["all", "one"] = Field(
        "all", description="shown at once; one: drawn for each pair, as published"
    )
    labels: tuple[str, str] = Field(("", ""), description="of the first answer and the second; default: 1 and 2")
    least: float = Field(
        0.0, ge=0, lt=0.5, description="pairs whose preference is nearer to .5 than this are thrown away"
    )

    @model_validator(mode="after")
    def _fits(self) -> Options:
        try:
            self.template.format(**dict.fromkeys(FIELDS, ""))
        except (LookupError, ValueError, AttributeError) as error:
            raise ValueError(f"prompt: {error} cannot be filled in; it is offered {', '.join(FIELDS)}") from error
        if not self.alone and not all(part in self.template for part in ("{first}", "{second}")):
            raise ValueError("prompt: a judge has to be shown {first} and {second}, or each {text} by itself")
        return self

    @property
    def template(self) -> str:
        return self.prompt or COMPARE + ENDS[self.by]

    @property
    def alone(self) -> bool:
        """Whether each answer is judged by itself."""
        return "{text}" in self.template

    @property
    def ends(self) -> tuple[str, str]:
        """The two labels, as they are said."""
        return self.labels if all(self.labels) else (("1", "2") if self.by == "word" else ("BETTER: 1", "BETTER: 2"))


def read_principles(file: str) -> list[str]:
    """The lines of a constitution that begin with a dash."""
    path = Path(file).expanduser() if file else CONSTITUTION
    if not path.is_file():
        raise MeritError(f"judge.constitution={file}: there is no such file")
    found = [line[1:].strip() for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("-")]
    if not found:
        raise MeritError(f"judge.constitution={file}: no principle in it; each is a line that begins with -")
    return found


def questions(pair: Pair, principles: Sequence[str], options: Options) -> list[Question]:
    """What is asked about a pair: about both orders, or about each answer by itself."""
    shown = principles if options.principles == "all" else [drawn(pair, principles)]
    told = {"constitution": "\n".join(f"- {p}" for p in shown), "question": pair.question or pair.prompt}
    if options.alone:
        prompts = [
            options.template.format(**told, text=text, first="", second="") for text in (pair.first, pair.second)
        ]
        ends = (options.good, options.bad)
    else:
        orders = ((pair.first, pair.second), (pair.second, pair.first))
        prompts = [options.template.format(**told, first=a, second=b, text="") for a, b in orders]
        ends = options.ends
    if options.by == "word":
        return [Rate(prompt, ends) for prompt in prompts]
    return [Consult(prompt, (), repeat) for prompt in prompts for repeat in range(options.samples)]


def drawn(pair: Pair, principles: Sequence[str]) -> str:
    """The principle that this pair is judged by: always the same one."""
    return principles[int(digest([pair.prompt, pair.first, pair.second])[:8], 16) % len(principles)]


def preferences(found: Sequence[Finding], options: Options) -> tuple[float, float]:
    """How likely the first answer is the better one, as it was told in each of the two orders (alone: the same twice)."""
    half = len(found) // 2
    if options.alone:
        first, second = (scoring.score(part, options) for part in (found[:half], found[half:]))
        return (scoring.chance(first - second),) * 2
    ahead, behind = (_said_first(part, options) for part in (found[:half], found[half:]))
    return ahead, 1 - behind


def _said_first(found: Sequence[Finding], options: Options) -> float:
    """How likely the answer that stood first is the better one, in one order."""
    if isinstance(found[0], Rated):
        return scoring.chance(scoring.score(found, options))
    first, second = options.ends
    read = options.model_copy(update={"good": first, "bad": second, "number": "(?!)()"})
    opinions = [scoring.read(said, read) for said in found]
    known = [opinion for opinion in opinions if opinion is not None]
    return math.fsum(known) / len(known) if known else 0.5
