"""Second tries with the answer as a hint: the rationalisation of STaR (arXiv 2203.14465, section 3.2).

A task that no play of a round got right is played once more with the gold answer named behind its question. The play is then
told again under the prompts without the hint (retell.py), graded like any other, and learnt from if it came to the right
answer: so there is something to learn from tasks that the team cannot solve yet. As published the hint is part of the prompt,
one try is made, and only what ends right is kept; there a task has one greedy try before, here as many as the round plays.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from string import Formatter

from apps.records import MeritError, Task

CALLED = "hint."  # begins the names of these plays


def missed(played: Iterable[tuple[str, bool]]) -> list[str]:
    """The tasks that no play got right, in the order of their first play; `played` are (task's id, right) a play."""
    right: dict[str, bool] = {}
    for task, well in played:
        right[task] = right.get(task, False) or well
    return [task for task, solved in right.items() if not solved]


def hinted(task: Task, hint: str) -> Task:
    """The task with the hint behind its question; `{answer}` in it becomes the gold answer."""
    return replace(task, question=task.question + hint.format(answer=task.answer))


def check(hint: str) -> None:
    """MeritError where a template names no answer, or something else besides."""
    try:
        fields = [name for _, name, _, _ in Formatter().parse(hint) if name is not None]
    except ValueError as error:
        raise MeritError(f"rollout.hint={hint!r} is no template: {error}") from error
    if not fields or set(fields) != {"answer"}:
        raise MeritError(f"rollout.hint={hint!r}: a text with {{answer}} in it, and no other field, is expected")
