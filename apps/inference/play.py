"""One play of a topology, flattened: nested plays and lists become batches of simple effects with paths.

A path names a turn by its place: "critic.1" is the second time this play asks its critic, and
"solve_critique_revise.0/critic.1" the same within a nested play. Unlike a running number, it stays the same when another
agent is left out, so recorded turns and random numbers can be matched between a play and its replay.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from apps import leaf
from apps.effects import Answer, Ask, Call, Effect, Play, Playing, Score
from apps.records import MeritError


@dataclass(frozen=True, slots=True)
class Want:
    """A simple effect and where in the play it stands."""

    path: str
    effect: Ask | Call | Score


Flat = Generator[list[Want], list[Any], Answer]


def flatten(playing: Playing, scope: str = "") -> Flat:
    """Yields what the play wants next, all at once; receives the results in the same order; returns its Answer."""
    if not isinstance(playing, Generator):
        raise MeritError(f"a topology's play must be a generator that yields effects; it is {playing!r}")
    counts: Counter[str] = Counter()
    result = None
    while True:
        try:
            wanted = playing.send(result)
        except StopIteration as end:
            return _answer(end.value)
        several = isinstance(wanted, list)
        results = yield from _together(wanted if several else [wanted], scope, counts)
        result = results if several else results[0]


def _together(effects: list[Effect], scope: str, counts: Counter[str]) -> Generator[list[Want], list[Any], list[Any]]:
    """Runs effects side by side until each has its result."""
    children = [_child(effect, scope, counts) for effect in effects]
    results: list[Any] = [None] * len(children)
    waiting: dict[int, list[Want]] = {}

    def advance(i: int, sent: list[Any] | None) -> None:
        try:
            waiting[i] = children[i].send(sent)
        except StopIteration as end:
            results[i] = end.value
            waiting.pop(i, None)

    for i in range(len(children)):
        advance(i, None)
    while waiting:
        order = sorted(waiting)
        sent = yield [want for i in order for want in waiting[i]]
        for i in order:
            count = len(waiting[i])
            advance(i, sent[:count])
            sent = sent[count:]
    return results


def _child(effect: Effect, scope: str, counts: Counter[str]) -> Generator[list[Want], list[Any], Any]:
    """A generator that wants one simple effect, or all that a nested play wants."""
    name = _name(effect)
    path = f"{scope}{name}.{counts[name]}"
    counts[name] += 1
    if isinstance(effect, Play):
        topology = leaf.find("topologies", effect.topology)
        options = leaf.options("topologies", {**effect.options, "name": effect.topology})
        answer = yield from flatten(topology.play(effect.task, options), f"{path}/")
        return answer.text
    (result,) = yield [Want(path, effect)]
    return result


def _name(effect: Effect) -> str:
    if isinstance(effect, Ask):
        return effect.role
    if isinstance(effect, Call):
        return effect.tool
    if isinstance(effect, Score):
        return effect.verifier
    if isinstance(effect, Play):
        return effect.topology.rsplit("/", 1)[-1].removesuffix(".py")
    raise MeritError(f"a topology yielded {effect!r}; it may yield Ask, Call, Score, Play or a list of them")


def _answer(value: Any) -> Answer:
    if not isinstance(value, Answer):
        raise MeritError(f"a topology returned {value!r}; it must return an Answer")
    return value
