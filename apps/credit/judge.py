"""A language model judges each turn; its word counts as much as it proved right where the truth is known.

Step by step, as in arXiv 2505.00212 (which agent, which step), but for every turn and not for failures alone: the judge is
asked `repeats` times and its reply has to end in one of two fixed labels. A turn is worth 2p − 1, where p is the probability
that the turn is right, calibrated as in `calibration.py`; a reply without a label is no opinion. An agent's value is the sum
over its turns.

What the judge is asked depends on the prompt. One that shows the turn (`{turn}`, as in RUBRIC) asks whether that turn is
right. One that does not (as in BRIEF, which critics are prompted with) asks whether the answer that then stood is right:
it is the turn's own where the turn gives one, and a check is right if it said so itself, so it is asked no question of its own.

Not a replay: a judge reads what was said and plays nothing again, so it cannot see what a turn led to.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field, model_validator

from apps import records
from apps.credit import calibration, groups
from apps.credit.calibration import Calibration, Tally
from apps.records import Consult, Credit, Graded, Group, MeritError, Said

BRIEF = "Check: {question} Solution: {draft}"
RUBRIC = """You are judging one step of a team's work on a problem.

Problem: {question}

What was said before:
{transcript}

The step to judge, by the {agent}:
{turn}

The answer that stands after it:
{draft}

A step is right if every statement and every calculation in it is true, if it answers what its author was asked for, and,
where it judges another's work, if that judgement is true. A step that only repeats an error is wrong. Reason briefly, then
end with exactly one of these lines:
VERDICT: CORRECT
VERDICT: INCORRECT"""
PROMPTS = {"brief": BRIEF, "rubric": RUBRIC}


class Options(records.Options):
    """Who judges, how it is asked, and what its word is worth."""

    adapter: str = Field("", description="folder of the judge's adapter in PEFT format; default: none")
    model: str = Field("", description="folder of the judge's base model; default: the team's")
    prompt: str = Field(
        "brief", description="brief, rubric, or a template with {question} {transcript} {agent} {turn} {draft}"
    )
    repeats: int = Field(4, ge=1, description="times that the judge is asked the same")
    temperature: float = Field(1.0, ge=0, description="of the judge; 0 = greedy")
    max_new_tokens: int = Field(256, ge=1, description="length of a reply at most")
    right: str = Field("VERDICT: CORRECT", min_length=1, description="how a reply ends that finds it right")
    wrong: str = Field("VERDICT: INCORRECT", min_length=1, description="how a reply ends that finds it wrong")
    calibration: Calibration | None = Field(None, description="what the judge's word is worth; default: it is measured")

    @model_validator(mode="after")
    def _ask_what_can_be_answered(self) -> Options:
        if self.temperature == 0 and self.repeats > 1:
            raise ValueError("at temperature 0 a judge repeats itself: repeats=1, or temperature above 0")
        try:
            self.template.format(**dict.fromkeys(FIELDS, ""))
        except (LookupError, ValueError, AttributeError) as error:
            raise ValueError(f"prompt: {error} cannot be filled in; it is offered {', '.join(FIELDS)}") from error
        return self

    @property
    def template(self) -> str:
        return PROMPTS.get(self.prompt, self.prompt)

    @property
    def sees_turn(self) -> bool:
        return "{turn}" in self.template


FIELDS = ("question", "transcript", "agent", "turn", "draft")


@dataclass(frozen=True, slots=True)
class Look:
    """What is asked about one turn, and how the reply bears on it."""

    asked: tuple[Consult, ...]  # empty where there is nothing to judge
    truth: bool | None  # of what is asked about, where it is verified
    agrees: bool | None = (
        True  # the turn is right if the reply is "right" (True) or "wrong" (False); None: wrong anyhow
    )


def asks(options: Options) -> bool:
    return True


def assign(group: Group, options: Options) -> Generator[list[Consult], list[Said], list[Credit]]:
    """2p − 1 for every turn, with its standard error."""
    groups.scores(group)
    looks = [look_at(group, graded, options) for graded in group.graded]
    opinions = yield from _opinions(looks, options)
    agents = groups.agents(group)
    return [credit(g, look, opinions, agents, options) for g, look in zip(group.graded, looks, strict=True)]


def tally(group: Group, options: Options) -> Generator[list[Consult], list[Said], Tally]:
    """What the judge said of each distinct case of the group, and the truth where it is known: for `calibrate`."""
    looks = [look for graded in group.graded for look in look_at(group, graded, options) if look.asked]
    opinions = yield from _opinions([looks], options)
    cases = {look.asked: look.truth for look in looks}
    return Tally((*heard(opinions, asked), truth) for asked, truth in cases.items())


def calibrate(found: Tally) -> tuple[dict[str, Any], dict[str, Any]]:
    """From the tally of all shards: the options that `assign` is given, and figures for people."""
    measured = calibration.fit(found)
    figures: dict[str, Any] = {
        "cases": sum(found.values()),
        "verified": sum(n for (_, _, truth), n in found.items() if truth is not None),
        "unread": sum(n for (_, said, _), n in found.items() if not said),
        "brier_of_its_word": calibration.brier(found, None),
        "brier": calibration.brier(found, measured),
        "reliability": calibration.reliability(found, measured),
    }
    return {"calibration": measured and measured.model_dump()}, {
        **figures,
        **(measured.model_dump() if measured else {}),
    }


def look_at(group: Group, graded: Graded, options: Options) -> list[Look]:
    """One look a turn of a trace."""
    turns = graded.trace.turns
    if len(graded.turn_verdicts) != len(turns):
        raise MeritError(
            f"judge: trace {graded.trace.id!r} has {len(turns)} turns and {len(graded.turn_verdicts)} turn verdicts, "
            "one a turn was expected; grade it again"
        )
    looks, said, draft, right = [], [], "", None
    for turn, verdict in zip(turns, graded.turn_verdicts, strict=True):
        checks = group.duties.get(turn.agent) == "check"
        if not checks:
            draft, right = turn.text, verdict and verdict.right
        own = opinion(turn.text, options) if checks else True
        fields = {"question": group.task.question, "transcript": "\n".join(said), "agent": turn.agent}
        fields |= {"turn": turn.text, "draft": draft}
        asked = _consults(fields, options) if draft or options.sees_turn else ()
        if not options.sees_turn:
            looks.append(Look(asked, right, own))
        else:
            looks.append(Look(asked, None if right is None else own is not None and own == right if checks else right))
        said.append(f"{turn.agent}: {turn.text}")
    return looks


def opinion(reply: str, options: Options) -> bool | None:
    """What a reply, or a check, ends in; None without a label."""
    end = reply.strip().removesuffix(".")
    return False if end.endswith(options.wrong) else True if end.endswith(options.right) else None


def heard(opinions: Mapping[Consult, bool | None], asked: Sequence[Consult]) -> tuple[int, int]:
    """How many of the replies say "right", and how many say anything."""
    said = [opinions[question] for question in asked]
    return said.count(True), len(said) - said.count(None)


def credit(
    graded: Graded,
    looks: Sequence[Look],
    opinions: Mapping[Consult, bool | None],
    agents: Sequence[str],
    options: Options,
) -> Credit:
    """The credit of one trace."""
    judged = [
        _judged(turn.path, look, heard(opinions, look.asked), options)
        for turn, look in zip(graded.trace.turns, looks, strict=True)
    ]
    values, spreads, notes = (tuple(column) for column in zip(*judged, strict=True)) if judged else ((), (), ())
    return groups.summed(graded, agents, values, spreads, notes)


def _judged(path: str, look: Look, said: tuple[int, int], options: Options) -> tuple[float, float, str]:
    """(value, its standard error, a sentence) of one turn. Nothing said: worth 0, and anything is possible."""
    yes, count = said
    asked = len(look.asked)
    if look.agrees is None:
        return -1.0, 0.0, f"{path} was to check and gave no verdict"
    if not count:
        return 0.0, 1.0, f"{path}: no opinion, none of the judge's {asked} replies ended in a verdict"
    p = calibration.chance(yes, count, options.calibration)
    error = calibration.spread(yes, count, options.calibration)
    p = p if look.agrees else 1 - p
    unread = f" ({asked - count} replies could not be read)" if count < asked else ""
    found = (
        f"{path}: the judge said {options.right!r} of {'it' if options.sees_turn else 'the answer'} in {yes} of {count}"
    )
    return 2 * p - 1, 2 * error, f"{found}{unread}; right with chance {p:.2f}"


def _consults(fields: Mapping[str, str], options: Options) -> tuple[Consult, ...]:
    used = tuple((name, text) for name, text in fields.items() if f"{{{name}}}" in options.template)
    prompt = options.template.format(**fields)
    return tuple(Consult(prompt, used, repeat) for repeat in range(options.repeats))


def _opinions(
    looks: Sequence[Sequence[Look]], options: Options
) -> Generator[list[Consult], list[Said], dict[Consult, bool | None]]:
    asked = list(dict.fromkeys(question for trace in looks for look in trace for question in look.asked))
    replies = (yield asked) if asked else []
    return {question: opinion(said.text, options) for question, said in zip(asked, replies, strict=True)}
