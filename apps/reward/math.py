r"""A mathematical expression, equal to the gold one symbolically: the last \boxed{…}, else after the last "ANSWER:".

Uses math-verify (github.com/huggingface/Math-Verify), its alarm-signal timeouts turned off, since they work in a main
thread only; instead the comparison runs in a helper process with a limit on processor time (see aside.py), and an
expression of more than 400 characters is refused (the longest of MATH's 5,000 answers has 91).
What math-verify cannot read is compared as text after normalisation: spacing, \left, \right, \dfrac, \text and "$" do
not matter, everything else does. Of MATH's test answers 2 in 5,000 need that. Without box and marker the whole text
counts, if it is one expression and no prose. Not used: math-verify's own search for answers, which reads numbers
out of prose, and its parser for plain expressions, which evaluates Python.
"""

from __future__ import annotations

import re

from apps import answer, records
from apps.records import MeritError, Task, Verdict
from apps.reward import aside

LONGEST = 400  # characters of an expression


class Options(records.Options):
    """Nothing to choose."""


def verify(task: Task, text: str, options: Options) -> Verdict:
    """1 where the expression that `text` states equals the gold one."""
    words = stated(text)
    if words is None:
        return Verdict(0.0, None, "no box, nothing after ANSWER:, and the whole text is no expression")
    if fault := unreadable(words):
        return Verdict(0.0, None, f"the answer {fault}")
    plain = normalised(words)
    if plain == normalised(task.answer):
        return Verdict(1.0, plain, "the same as the gold answer, word for word")
    equal, why = aside.call("apps.reward.math:equal", task.answer, words)
    if equal is None:
        return Verdict(0.0, None, f"could not be compared: {why}" if why else "not a mathematical expression")
    return Verdict(float(equal), plain, f"{plain} {'equals' if equal else 'differs from'} {task.answer}")


def check_gold(task: Task, options: Options) -> None:
    """Raises MeritError where the gold answer is empty, too long, not an expression at all, or takes too long."""
    fault = unreadable(task.answer) or ("" if is_expression(task.answer) else "is prose, not one expression")
    if not fault:
        _, why = aside.call("apps.reward.math:equal", task.answer, task.answer)
        fault = f"cannot be compared: {why}" if why else ""
    if fault:
        raise MeritError(f"task {task.id}, verifier math: the gold answer {task.answer[:80]!r} {fault}")


def unreadable(words: str) -> str:
    """Why `words` cannot be one expression, "" where they can: a cheap look before any parsing.

    A brace too many, a second box or a dollar sign inside would let one text hold several answers.
    """
    if not normalised(words):
        return "is empty"
    if len(words) > LONGEST:
        return f"has {len(words)} characters, more than {LONGEST}"
    if answer.closing("{" + words + "}") != len(words) + 1:
        return "has braces that do not match"
    if re.search(r"\\boxed|\\fbox|(?<!\\)\$", words.strip().strip("$")):
        return "holds a box or a dollar sign inside"
    return ""


def stated(text: str) -> str | None:
    """The expression that `text` states."""
    for words in (answer.last_box(text), answer.after(text)):
        if words is not None:
            return words.strip().removesuffix(".").strip()
    return text.strip().removesuffix(".").strip() if is_expression(text.strip()) else None


def is_expression(text: str) -> bool:
    r"""Whether `text` is one short line without prose: no two words in a row outside \text{…}."""
    if not text or len(text) > LONGEST or "\n" in text:
        return False
    symbols = re.sub(r"\\(?:text|mbox|mathrm|textbf)\s*\{[^{}]*\}|\\[A-Za-z]+", "", text)
    return not re.search(r"[A-Za-z]{2,}\s+[A-Za-z]{2,}", symbols)


def normalised(words: str) -> str:
    """`words` without what does not change their meaning: spacing, sizing, dollar signs, text mode."""
    words = re.sub(r"\\(?:text|mbox|mathrm|textbf)\s*\{([^{}]*)\}", r"\1", words)
    words = re.sub(r"\\(?:left|right)(?![A-Za-z])|\\[!,;: ]|\$", "", words)
    words = re.sub(r"\\[dt]frac(?![A-Za-z])", r"\\frac", words)
    words = re.sub(r"\s+", " ", words).strip().removesuffix(".").strip()
    return re.sub(r"(?<![A-Za-z]) | (?![A-Za-z])", "", words)  # a space between two letters may hold a command apart


def equal(gold: str, words: str) -> bool | None:
    """Whether two LaTeX expressions are equal; None where one of them cannot be read. Runs in the helper process."""
    from math_verify import LatexExtractionConfig, parse, verify

    how = [LatexExtractionConfig(boxed_match_priority=0)]
    sides = [
        parse(rf"\boxed{{{side.strip().strip('$')}}}", how, fallback_mode="no_fallback", parsing_timeout=None)
        for side in (gold, words)
    ]
    return verify(*sides, timeout_seconds=None) if all(sides) else None
