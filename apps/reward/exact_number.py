"""The answer is a number, compared exactly: after the last "ANSWER:", else the last "####", else in the last box.

The strictest verifier: a text whose marked answer is not a plain number is wrong even where the right number stands
elsewhere in it, since a team that may hide several answers in one text learns to hide several. Numbers are rationals
(decimals are exact), never floats, so 0.1 + 0.2 is 0.3. Allowed around a number: spaces, thousands commas, "$", "%"
and a final full stop; "%" is a unit here and changes nothing, as in GSM8K, where "50%" and "50" are the same answer.
Integer fractions ("3/4") count as numbers; words, units, exponents and expressions do not.
"""

from __future__ import annotations

import re
from fractions import Fraction

from pydantic import Field

from apps import answer, records
from apps.records import MeritError, Task, Verdict

LONGEST = 1000  # characters; also keeps below Python's limit of 4300 digits for int()
DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)"
NUMBER = re.compile(rf"([-+−]?)\s*\$?\s*([-+−]?)({DIGITS}?(?:\.[0-9]+)?|{DIGITS}\.|{DIGITS}/[0-9]+)\s*%?")


class Options(records.Options):
    """How close is right."""

    tolerance: float = Field(
        0.0, ge=0, allow_inf_nan=False, description="largest absolute difference that still counts"
    )


def verify(task: Task, text: str, options: Options) -> Verdict:
    """1 where the number that `text` states equals the gold number."""
    words = stated(text)
    number = parse(words)
    if number is None:
        return Verdict(0.0, None, f"no number {place(text)}: {words[:60]!r}")
    gold = parse(stated(task.answer))
    if gold is None:
        raise MeritError(complaint(task))
    right = abs(number - gold) <= Fraction(str(options.tolerance))
    return Verdict(float(right), str(number), f"{number} is {'right' if right else f'wrong, the answer is {gold}'}")


def check_gold(task: Task, options: Options) -> None:
    """Raises MeritError where the gold answer is not a number."""
    if parse(stated(task.answer)) is None:
        raise MeritError(complaint(task))


def complaint(task: Task) -> str:
    return f"task {task.id}: the gold answer {task.answer[:80]!r} is not a number, as the verifier exact_number expects"


def stated(text: str) -> str:
    """The words in which `text` states its answer; a marker decides even where no number follows it."""
    for words in (answer.after(text), answer.after(text, answer.GSM8K_MARKER), answer.last_box(text)):
        if words is not None:
            return words
    return text.strip()


def place(text: str) -> str:
    """Where an answer was looked for, for people."""
    if answer.MARKER in text:
        return f"after {answer.MARKER}"
    return f"after {answer.GSM8K_MARKER}" if answer.GSM8K_MARKER in text else "in the last box or as the whole text"


def parse(words: str) -> Fraction | None:
    """The number that `words` are, as an exact rational; None where they are anything else."""
    words = words.strip()
    if not words or len(words) > LONGEST:
        return None
    match = NUMBER.fullmatch(words) or NUMBER.fullmatch(words.removesuffix(".").rstrip())
    if match is None or not match[3] or (match[1] and match[2]):
        return None
    try:
        number = Fraction(match[3].replace(",", "").removesuffix("."))
    except ZeroDivisionError:
        return None
    return -number if (match[1] or match[2]) in ("-", "−") and number else number
