"""The answer is the letter of one option: "B", "(B)", "B) 12 km", or exactly one option's text.

Looks after the last "ANSWER:", else in the last box, else at the whole text. A text that names two letters, or
the texts of two options, has not chosen and counts as not parsed.
"""

from __future__ import annotations

import re
import string

from apps import answer, records
from apps.records import MeritError, Task, Verdict

LONGEST = 20_000  # characters of a text without a marker; more is no answer
BARE = re.compile(r"\(?([A-Za-z])[).:]?\.?")  # the whole statement is a letter
LABELLED = re.compile(r"\(([A-Z])\)|(?<![A-Za-z0-9(])([A-Z])\)")  # "(B)" or "B)" anywhere


class Options(records.Options):
    """Nothing to choose."""


def verify(task: Task, text: str, options: Options) -> Verdict:
    """1 where the option that `text` chooses is the gold one."""
    words = stated(text)
    letter = chosen(words, task.choices)
    if letter is None:
        return Verdict(0.0, None, f"no single option among {letters(task.choices)}: {words[:60]!r}")
    right = letter == gold(task)
    return Verdict(float(right), letter, f"{letter} is {'right' if right else f'wrong, the answer is {task.answer}'}")


def check_gold(task: Task, options: Options) -> None:
    """Raises MeritError where the gold answer is not the letter of one of the task's options."""
    gold(task)


def gold(task: Task) -> str:
    """The gold letter."""
    if len(task.choices) < 2 or task.answer.strip() not in tuple(letters(task.choices)):
        raise MeritError(
            f"task {task.id}: the gold answer {task.answer[:80]!r} is not the letter of one of its "
            f"{len(task.choices)} options ({letters(task.choices) or 'it has none'})"
        )
    return task.answer.strip()


def letters(choices: tuple[str, ...]) -> str:
    """The letters of the options: "ABCDE" for five."""
    return string.ascii_uppercase[: len(choices)]


def stated(text: str) -> str:
    """The words in which `text` states its choice."""
    for words in (answer.after(text), answer.last_box(text)):
        if words is not None:
            return words
    return text.strip()


def chosen(words: str, choices: tuple[str, ...]) -> str | None:
    """The letter of the one option that `words` choose; None where they choose none, or more than one."""
    known = letters(choices)
    if len(words) > LONGEST:
        return None
    bare = BARE.fullmatch(words.strip())
    if bare and bare[1].upper() in known:
        return bare[1].upper()
    same = [letter for letter, choice in zip(known, choices, strict=True) if plain(choice) == plain(words)]
    if same:
        return only(same)
    labels = {a or b for a, b in LABELLED.findall(words)} & set(known)
    return (
        only(labels)
        if labels
        else only(letter for letter, choice in zip(known, choices, strict=True) if says(words, choice))
    )


def only(found) -> str | None:
    """The one element of `found`, None where there are more or none."""
    found = list(found)
    return found[0] if len(found) == 1 else None


def plain(text: str) -> str:
    return " ".join(text.casefold().strip().removesuffix(".").split())


def says(words: str, choice: str) -> bool:
    """Whether the text of an option stands in `words` as whole words: "5" does not stand in "15" or "2.5"."""
    return bool(plain(choice)) and bool(re.search(rf"(?<![\w.]){re.escape(plain(choice))}(?!\w|\.\d)", plain(words)))
