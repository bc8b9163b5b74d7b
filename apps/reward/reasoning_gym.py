"""The scorer of the reasoning-gym task family that made the task: many answers may be right, some in part.

For tasks of apps/tasks/reasoning_gym.py alone, whose `solution` holds what the scorer needs (the family's own settings
and the entry it made) as JSON, and whose `subject` is the family's name in that library. The answer is everything after
the last "ANSWER:", else in the last <answer>…</answer>, else the whole text. The score is the library's own, in 0..1;
its small consolation scores (.01, .05) are kept.

Some of its scorers evaluate expressions as Python. They run in a helper process with a limit on processor time (see
aside.py), and a text that calls a built-in function or holds "__" is refused; that is a fence, not a sandbox.
"""

from __future__ import annotations

import builtins
import functools
import json
import re
from typing import Any

from apps import answer, records
from apps.records import MeritError, Task, Verdict
from apps.reward import aside

LONGEST = 20_000  # characters of an answer
CALLS = "|".join(sorted(name for name in dir(builtins) if name[0].islower()))
CODE = re.compile(rf"__|\blambda\b|\bimport\b|\b(?:{CALLS})\s*\(")


class Options(records.Options):
    """Nothing to choose."""


def verify(task: Task, text: str, options: Options) -> Verdict:
    """The score that the library gives the answer that `text` states."""
    words = stated(text)
    if not words or len(words) > LONGEST or CODE.search(words):
        return Verdict(0.0, None, f"no answer of 1 to {LONGEST} characters, or one that looks like a program")
    value, why = aside.call("apps.reward.reasoning_gym:score", task.subject, task.solution, words)
    if value is None:
        return Verdict(0.0, None, f"could not be scored: {why}")
    return Verdict(min(max(value, 0.0), 1.0), words, f"{task.subject} scores it {value:g}")


def check_gold(task: Task, options: Options) -> None:
    """Raises MeritError where the library's own answer, if it has one, is not right by its own scorer."""
    value, why = aside.call("apps.reward.reasoning_gym:score", task.subject, task.solution, task.answer)
    if why or (task.answer and value < 0.99):
        raise MeritError(
            f"task {task.id}: the gold answer {task.answer[:80]!r} is not right by reasoning-gym's own scorer for "
            f"{task.subject!r} ({why or f'it scores {value:g}'})"
        )


def stated(text: str) -> str:
    """The words in which `text` states its answer; they may have several lines."""
    if answer.MARKER in text:
        return text.rpartition(answer.MARKER)[2].strip()
    _, tag, rest = text.rpartition("<answer>")
    return (rest.partition("</answer>")[0] if tag else text).strip()


def score(name: str, made: str, words: str) -> float:
    """The library's score of `words` for the entry `made`. Runs in the helper process."""
    made = json.loads(made)
    return float(family(name, json.dumps(made["config"])).score_answer(words, restored(made["entry"])))


def restored(value: Any) -> Any:
    """The inverse of `plain` in apps/tasks/reasoning_gym.py: {"tuple": […]} is a tuple."""
    if isinstance(value, list):
        return [restored(part) for part in value]
    if isinstance(value, dict):
        parts = {key: restored(part) for key, part in value.items()}
        return tuple(parts["tuple"]) if parts.keys() == {"tuple"} else parts
    return value


@functools.lru_cache(maxsize=16)
def family(name: str, config: str):
    """The library's task family with its settings."""
    import reasoning_gym

    return reasoning_gym.create_dataset(name, **json.loads(config))
