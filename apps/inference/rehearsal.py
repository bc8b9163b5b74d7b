"""A play with made-up texts before any model speaks: a template that asks for a field that no role is offered is found at once.

It proves nothing more. A topology may take another way with real texts, so a role that the rehearsals do not reach is not
checked, and one that cannot do with made-up texts is left in peace: its faults are told when it is played.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from string import Formatter
from typing import Any

from apps import leaf
from apps.effects import Ask, Score
from apps.inference.play import Want, begin
from apps.records import MeritError, Task, Verdict

TASK = Task("rehearsal-0", "What is 1 + 1?", "2", "rehearsal", "train")
TEXTS = ("", "ANSWER: 2", "VERDICT: CORRECT", "VERDICT: INCORRECT")  # everyone says the same, play by play
WAVES = 100  # of effects; a team that argues until somebody gives in would never end


def check(topology: str, options: Mapping[str, Any], prompts: Mapping[str, str]) -> None:
    """Raises MeritError where the template of a role asks for a field that the role was not offered in some rehearsal."""
    for text in TEXTS:
        for ask in asked(topology, options, text):
            if ask.role in prompts:
                check_template(prompts[ask.role], ask)


def asked(topology: str, options: Mapping[str, Any], text: str) -> list[Ask]:
    """Who is asked in a play in which every agent and every tool says `text`, as far as the play gets."""
    found: list[Ask] = []
    with suppress(Exception):  # a user's own code was given texts that it need not understand
        for ask in _asked(topology, options, text):
            found.append(ask)
    return found


def _asked(topology: str, options: Mapping[str, Any], text: str) -> Iterator[Ask]:
    flat, sent = begin(topology, TASK, options), None
    for _ in range(WAVES):
        wants = flat.send(sent)
        yield from (want.effect for want in wants if isinstance(want.effect, Ask))
        sent = [_made_up(want, text) for want in wants]


def _made_up(want: Want, text: str) -> Any:
    return Verdict(0.0, None, "a rehearsal") if isinstance(want.effect, Score) else text


def check_template(template: str, ask: Ask) -> None:
    """Names only: what a field's value can do is seen when it is filled in."""
    where = f"team.prompts.{ask.role}"
    try:
        names = [name for _, name, _, _ in Formatter().parse(template) if name is not None]
    except ValueError as error:
        raise MeritError(f"{where}: {error}; write {{{{ and }}}} for braces that are meant as such") from error
    for name in names:
        field = name.split(".")[0].split("[")[0]
        if field not in ask.fields:
            raise MeritError(leaf.unknown(f"{where}: field", field, list(ask.fields)))
