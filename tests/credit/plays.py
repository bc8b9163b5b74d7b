"""Small graded groups for the tests of credit methods, and a team whose value in any coalition is known."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Generator, Sequence

import numpy as np

from apps.records import (
    Consult,
    Credit,
    Finding,
    Graded,
    Group,
    Outcome,
    Question,
    Rated,
    Replay,
    Reward,
    Rewarded,
    Said,
    Sampling,
    Task,
    Trace,
    Turn,
    Verdict,
)

NOTHING = np.zeros(0, dtype=np.int32)


def turn(agent: str, number: int = 0) -> Turn:
    text = f"{agent} {number}"
    return Turn(agent, f"{agent}.{number}", "", text, NOTHING, NOTHING, NOTHING.astype("f4"), "base", Sampling(), 0)


def trace(speakers: Sequence[str], sample: int = 0, task: str = "t") -> Trace:
    turns = tuple(turn(agent, list(speakers[:i]).count(agent)) for i, agent in enumerate(speakers))
    return Trace(task, str(sample), turns, "", True)


def verdict(right: float | bool | None) -> Verdict | None:
    return None if right is None else Verdict(float(right), "42", "")


def graded(
    speakers: Sequence[str], score: float, turns: Sequence[bool | None] | None = None, sample: int = 0
) -> Graded:
    marks = tuple(verdict(mark) for mark in (turns or [None] * len(speakers)))
    return Graded(trace(speakers, sample), verdict(score), marks)


def group(*members: Graded, roles: tuple[str, ...] = (), task: str = "t") -> Group:
    return Group(Task(task, "?", "42", "arithmetic", "train"), members, roles)


def drive(
    credit: Generator[list[Replay], list[Outcome], list[Credit]], score: Callable[[Replay], float]
) -> tuple[list[Credit], list[Replay]]:
    """Runs a method to its end, answering each replay by `score`, and others by chance; also gives what it asked for."""
    asked, answer = [], None
    try:
        while True:
            wanted = credit.send(answer)
            asked += wanted
            answer = [found(question, score) for question in wanted]
    except StopIteration as stop:
        return stop.value, asked


def found(question: Question, score: Callable[[Replay], float]) -> Finding:
    """What a replay comes to by `score`; what a judge or a reward model says, which depends on the question alone."""
    if isinstance(question, Replay):
        return Outcome(score(question), "", 1, 1)
    number = zlib.crc32(repr(question).encode())
    if isinstance(question, Consult):
        return Said(("VERDICT: CORRECT", "VERDICT: INCORRECT", "I cannot tell.")[number % 3], 3)
    if isinstance(question, Reward):
        return Rewarded((tuple(float(number % (5 + i)) for i in range(len(question.pieces))),), 9)
    return Rated(tuple(-float(number % (7 + i)) for i in range(len(question.texts))), 9)


def no_replays(replay: Replay) -> float:
    raise AssertionError(f"asked for {replay}")
