"""Pairs of completions of one prompt, and which of them is preferred: from verdicts, from a judge's labels, from a file.

A pair's first and second are in an order that says nothing of their worth, so that whoever labels it cannot learn from it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from apps import records
from apps.records import Graded, MeritError, Turn, digest

FILE = "pairs.jsonl"


class Options(records.Options):
    """Which completions are put side by side."""

    per_prompt: int = Field(4, ge=1, description="pairs of one prompt at most")
    like: float = Field(
        1.2,
        ge=1,
        description="pairs of which the longer text is at most so many times as long come first: length tells nothing",
    )
    agents: tuple[str, ...] = Field((), description="whose turns; default: of all agents whose turns carry an answer")


@dataclass(frozen=True, slots=True)
class Pair:
    """Two completions of one prompt."""

    prompt: str  # the user's message, or the whole prompt as the chat template made it where it is `rendered`
    first: str
    second: str
    rendered: bool = False
    question: str = ""  # what a judge is told that it is about; "": the prompt
    preferred: float | None = None  # how likely the first is the better one; None: nobody has said
    margin: float | None = None  # how much better the preferred one is; None where nobody has said
    unit: str = ""  # what is drawn whole in an interval: the task, or the prompt

    @property
    def chosen(self) -> str:
        return self.first if (self.preferred or 0.0) >= 0.5 else self.second

    @property
    def rejected(self) -> str:
        return self.second if (self.preferred or 0.0) >= 0.5 else self.first


def of_plays(
    graded: Iterable[Graded], questions: Mapping[str, str], options: Options, labelled: bool = True
) -> list[Pair]:
    """Pairs of what an agent said in one state; `questions` by task.

    Labelled: a right one and a wrong one by the verifier. Else any two that differ, for a judge.
    """
    states: dict[tuple[str, str, str], dict[str, tuple[Turn, bool]]] = {}
    for one in graded:
        for turn, verdict in zip(one.trace.turns, one.turn_verdicts, strict=True):
            wanted = turn.agent in options.agents if options.agents else verdict is not None
            if wanted and (verdict or not labelled) and not turn.stand_in and turn.text:
                said = states.setdefault((one.trace.task, turn.agent, turn.state), {})
                said.setdefault(turn.text, (turn, verdict is not None and verdict.right))
    found = []
    for (task, _, _), said in states.items():
        found += _of_state(task, list(said.values()), questions[task], options, labelled)
    return found


def _of_state(
    task: str, said: Sequence[tuple[Turn, bool]], question: str, options: Options, labelled: bool
) -> Iterator[Pair]:
    couples = [
        (one, other) for i, one in enumerate(said) for other in said[i + 1 :] if not labelled or one[1] != other[1]
    ]
    couples.sort(key=lambda couple: (not _like(*couple, options.like), digest([task, *(t.text for t, _ in couple)])))
    for one, other in couples[: options.per_prompt]:
        first, second = neutral(one, other, lambda part: part[0].text)
        preferred = float(first[1]) if labelled else None
        yield Pair(first[0].prompt, first[0].text, second[0].text, True, question, preferred, None, task)


def _like(one: tuple[Turn, bool], other: tuple[Turn, bool], ratio: float) -> bool:
    shorter, longer = sorted(len(turn.text) for turn, _ in (one, other))
    return longer <= ratio * shorter


def neutral(one: Any, other: Any, text=lambda part: part) -> tuple[Any, Any]:
    """The two in an order that depends on their words alone."""
    return (one, other) if digest([text(one), text(other)]) < digest([text(other), text(one)]) else (other, one)


def of_file(file: Path) -> list[Pair]:
    """A JSONL file of `prompt`, `chosen`, `rejected` and perhaps `margin`: texts, or conversations as TRL has them."""
    found = []
    with open(file, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                found.append(_read(line, f"{file}, line {number}"))
    if not found:
        raise MeritError(f"{file}: no pairs in it; a line is expected to be {{prompt, chosen, rejected}} in JSON")
    return found


def _read(line: str, where: str) -> Pair:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise MeritError(f"{where}: no JSON: {error}") from error
    if not isinstance(row, dict) or (missing := [k for k in ("prompt", "chosen", "rejected") if not row.get(k)]):
        lacks = f"no {' and no '.join(missing)}" if isinstance(row, dict) else "no object"
        raise MeritError(
            f"{where}: {lacks}; a pair is {{prompt, chosen, rejected}}, and a pair without a loser is none"
        )
    prompt, chosen, rejected = (_text(row[key], f"{where}: {key}") for key in ("prompt", "chosen", "rejected"))
    if chosen == rejected:
        raise MeritError(f"{where}: chosen and rejected are the same text; nothing can be preferred to itself")
    first, second = neutral(chosen, rejected)
    margin = row.get("margin")
    if margin is not None and not isinstance(margin, (int, float)):
        raise MeritError(f"{where}: margin = {margin!r}: a number is expected")
    return Pair(prompt, first, second, False, "", float(first == chosen), margin, digest(prompt)[:16])


def _text(given: Any, where: str) -> str:
    """A text, or the last message of a conversation."""
    if isinstance(given, list) and given and isinstance(given[-1], dict):
        given = given[-1].get("content")
    if not isinstance(given, str) or not given.strip():
        raise MeritError(f"{where}: a text is expected, or a conversation that ends in one; given {str(given)[:60]!r}")
    return given


def with_preference(pair: Pair, preferred: float) -> Pair:
    """The pair as somebody else labels it, who says nothing of a margin."""
    return dataclasses.replace(pair, preferred=preferred, margin=None)


def shuffled(pairs: Sequence[Pair], seed: str) -> list[Pair]:
    """The control experiment: every pair is labelled by a coin."""
    return [
        with_preference(pair, float(int(digest([seed, pair.prompt, pair.first, pair.second])[:8], 16) < 2**31))
        if pair.preferred is not None
        else pair
        for pair in pairs
    ]


def held_out(pairs: Sequence[Pair], share: float = 0.2) -> tuple[list[Pair], list[Pair]]:
    """(training pairs, held-out ones): a prompt's pairs stay together, and which side they are on depends on it alone."""
    sides: tuple[list[Pair], list[Pair]] = ([], [])
    for pair in pairs:
        sides[int(digest(["held out", pair.unit])[:8], 16) < share * 2**32].append(pair)
    return sides


def write(folder: Path, pairs: Sequence[Pair]) -> None:
    with open(folder / FILE, "w", encoding="utf-8") as file:
        for pair in pairs:
            file.write(json.dumps(dataclasses.asdict(pair)) + "\n")


def read(folder: Path) -> list[Pair]:
    with open(folder / FILE, encoding="utf-8") as file:
        return [Pair(**json.loads(line)) for line in file]
