"""One play of a topology, flattened: nested plays and lists become batches of simple effects with paths.

A path names a turn by its place: "critic.1" is the second time this play asks its critic, and
"solve_critique_revise.0/critic.1" the same within a nested play. Unlike a running number, it stays the same when another
agent is left out, so recorded turns and random numbers can be matched between a play and its replay.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

from apps import leaf
from apps.effects import Answer, Ask, Call, Effect, Play, Playing, Score
from apps.records import MeritError, Task

FOLDERS = {Call: "tools", Score: "reward", Play: "topologies"}  # where the leaf that an effect names is looked for


@dataclass(frozen=True, slots=True)
class Want:
    """A simple effect and where in the play it stands."""

    path: str
    effect: Ask | Call | Score


Flat = Generator[list[Want], list[Any], Answer]
Uses = tuple[tuple[str, str], ...]  # (folder, leaf) of each tool, verifier or topology that a topology's effects name


def begin(topology: str, task: Task, options: Mapping[str, Any], scope: str = "") -> Flat:
    """A play of the topology of that name, from its start."""
    module = leaf.find("topologies", topology)
    chosen = leaf.options("topologies", {**options, "name": topology})
    return flatten(module.play(task, chosen), scope, getattr(module, "USES", ()))


def flatten(playing: Playing, scope: str = "", uses: Uses = ()) -> Flat:
    """Yields what the play wants next, all at once; receives the results in the same order; returns its Answer.

    An effect whose leaf is not among `uses` is refused: its code would be in no key, and an edit of it go unseen.
    """
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
        for effect in wanted if several else [wanted]:
            _check_declared(effect, uses)
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
        answer = yield from begin(effect.topology, effect.task, effect.options, f"{path}/")
        return answer.text
    (result,) = yield [Want(path, effect)]
    return result


def _check_declared(effect: Effect, uses: Uses) -> None:
    if type(effect) in FOLDERS and (named := (FOLDERS[type(effect)], _leaf(effect))) not in set(map(tuple, uses)):
        declared = ", ".join(f"{folder} {name}" for folder, name in uses) or "none"
        raise MeritError(
            f"topologies: a play yielded {type(effect).__name__}({named[1]!r}), which its topology does not declare; add {named!r} "
            f"to USES there, so that an edit of {named[1]} remakes what it decided (declared: {declared})"
        )


def _leaf(effect: Effect) -> str:
    if isinstance(effect, Call):
        return effect.tool
    if isinstance(effect, Score):
        return effect.verifier
    if isinstance(effect, Play):
        return effect.topology
    raise MeritError(f"a topology yielded {effect!r}; it may yield Ask, Call, Score, Play or a list of them")


def _name(effect: Effect) -> str:
    """What an effect is called in a path: its role, or its leaf; a leaf that is given by its file has the file's stem."""
    return effect.role if isinstance(effect, Ask) else _leaf(effect).rsplit("/", 1)[-1].removesuffix(".py")


def _answer(value: Any) -> Answer:
    if not isinstance(value, Answer):
        raise MeritError(f"a topology returned {value!r}; it must return an Answer")
    return value
