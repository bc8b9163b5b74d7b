"""Every agent by its own verifier: whether what it said itself was true, whatever came of it.

By the duty that the topology declares for it:

- solve, revise: its own answer is right (+1) or wrong (−1);
- check: its verdict on the latest answer is true or false; a text that ends in no verdict is false, as in the figures
  of detection;
- report: it reports the answer that it was given, right or wrong, or another one.

0 where nothing can be judged: nobody answered before a check, no answer could be read before a report. Known exactly,
so without standard errors; an agent's value is the mean over its turns that could be judged. It asks for no replays.

The baseline to beat beside `uniform`: it cannot tell a draft that helped from one that had to be repaired, nor whether
anybody listened to a true verdict.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping

from pydantic import Field

from apps import records
from apps.answer import verdict
from apps.credit import groups
from apps.records import Credit, Graded, Group, MeritError, Outcome, Replay

DUTIES = ("solve", "check", "revise", "report")


class Options(records.Options):
    """What being right and wrong are worth."""

    right: float = Field(1.0, ge=0, le=1, description="value of a turn whose own words are true")
    wrong: float = Field(-1.0, ge=-1, le=0, description="value of a turn whose own words are false")


def asks(options: Options) -> bool:
    return False


def assign(group: Group, options: Options) -> Generator[list[Replay], list[Outcome], list[Credit]]:
    """The truth of each turn, as a value."""
    yield from ()
    groups.scores(group)
    check(group)
    worth = {True: options.right, False: options.wrong, None: 0.0}
    found = []
    for graded in group.graded:
        truths = [true(graded, i, group.duties) for i in range(len(graded.trace.turns))]
        own: dict[str, list[float]] = {agent: [] for agent in groups.agents(group)}
        for turn, truth in zip(graded.trace.turns, truths, strict=True):
            own[turn.agent] += [worth[truth]] if truth is not None else []
        agents = {agent: sum(values) / len(values) if values else 0.0 for agent, values in own.items()}
        values = tuple(worth[truth] for truth in truths)
        found.append(
            Credit(graded.trace.id, values, (0.0,) * len(values), agents, {}, notes(graded, truths, group.duties))
        )
    return found


def true(graded: Graded, index: int, duties: Mapping[str, str]) -> bool | None:
    """Whether what a turn says is so; None where that cannot be judged."""
    turn, own = graded.trace.turns[index], graded.turn_verdicts[index]
    duty = duties[turn.agent]
    if duty in ("solve", "revise"):
        return None if own is None else own.right
    given = graded.before(index)
    if given is None:
        return None
    if duty == "check":
        return verdict(turn.text) is given.right
    return None if given.parsed is None or own is None else own.parsed == given.parsed


def notes(graded: Graded, truths: list[bool | None], duties: Mapping[str, str]) -> tuple[str, ...]:
    said = {
        ("check", True): "judged the answer before it rightly",
        ("check", False): "misjudged the answer before it",
        ("report", True): "reported the answer that it was given",
        ("report", False): "reported another answer than it was given",
    }
    return tuple(
        f"{turn.path} {said.get((duties[turn.agent], truth), 'was right' if truth else 'was wrong')}"
        for turn, truth in zip(graded.trace.turns, truths, strict=True)
        if truth is not None
    )


def check(group: Group) -> None:
    """Each turn needs a known duty, and verdicts beside it."""
    for graded in group.graded:
        if len(graded.turn_verdicts) != len(graded.trace.turns):
            raise MeritError(
                f"credit.local: trace {graded.trace.id!r} has {len(graded.trace.turns)} turns and "
                f"{len(graded.turn_verdicts)} turn verdicts, one a turn was expected; grade it again"
            )
        for agent in graded.trace.agents:
            if (duty := group.duties.get(agent)) not in DUTIES:
                raise MeritError(
                    f"credit.local: the duty of {agent!r} in trace {graded.trace.id!r} is {duty or 'not known'}, one of "
                    f"{', '.join(DUTIES)} was expected; declare it in the topology's DUTIES, or take another credit method"
                )
