"""Multiple choice: rows as AQuA (arXiv 1705.04146) or CommonsenseQA (arXiv 1811.00937) publish them, told by their keys.

AQuA: `question`, `options` ["A)21", …], `correct` "B", `rationale`. CommonsenseQA: `question`, `choices` {label, text},
`answerKey`; or, as first published, `question` {stem, choices [{label, text}, …]}. Rows whose answer is
not published (CommonsenseQA's test split) are left out. The team sees the options below the question, "A) 21" a line.
"""

from __future__ import annotations

import re
import string
from typing import Any

from pydantic import Field

from apps.records import MeritError, Task
from apps.tasks import source

VERIFIER = "multiple_choice"


class Options(source.FileOptions):
    """Where the rows come from."""

    hub: str = Field(
        "deepmind/aqua_rat",
        description="name of the data set on the Hugging Face hub, for an empty path (or tau/commonsense_qa)",
    )
    hub_config: str = Field("", description="which configuration of that data set; aqua_rat has raw and tokenized")


def load(split: str, options: Options) -> list[Task]:
    """The tasks of a split."""
    if options.hub == "deepmind/aqua_rat" and not options.hub_config:
        options = options.model_copy(update={"hub_config": "raw"})
    return source.load("multiple_choice", split, options, task)


def task(row: source.Row, split: str) -> Task | None:
    """A row as a task; None where its answer is not published."""
    question, labels, texts, answer = fields(row)
    if not answer:
        return None
    if answer not in labels:
        raise MeritError(f"multiple_choice: the answer {answer!r} of {question[:60]!r} is none of {', '.join(labels)}")
    letter = string.ascii_uppercase[labels.index(answer)]
    shown = ask(question, texts)
    return Task(
        source.identify("multiple_choice", shown),
        shown,
        letter,
        "multiple_choice",
        split,
        solution=str(row.get("rationale") or ""),
        subject=str(row.get("question_concept") or ""),
        choices=tuple(texts),
    )


def fields(row: source.Row) -> tuple[str, list[str], list[str], str]:
    """(question, labels of the options, their texts, the right label), of either kind of row."""
    if "options" in row:
        labels, texts = unlabel(row["options"])
        return (
            str(source.column(row, "question", where="multiple_choice")),
            labels,
            texts,
            str(row.get("correct") or ""),
        )
    question = source.column(row, "question", where="multiple_choice")
    stem, inner = (question.get("stem"), question) if isinstance(question, dict) else (question, row)
    labels, texts = pairs(source.column(inner, "choices", where="multiple_choice"))
    return str(stem), labels, texts, str(row.get("answerKey") or "")


def unlabel(options: list[str]) -> tuple[list[str], list[str]]:
    """["A)21", "B) 22"] → (["A", "B"], ["21", "22"])."""
    found = [re.match(r"\s*\(?([A-Za-z0-9])\s*[).:]\s*(.*)", str(option), re.DOTALL) for option in options]
    if not found or not all(found):
        raise MeritError(f"multiple_choice: options are expected as 'A)text', got {options!r}"[:300])
    return [match[1].upper() for match in found], [match[2].strip() for match in found]


def pairs(choices: Any) -> tuple[list[str], list[str]]:
    """{label: […], text: […]} or [{label, text}, …] → (labels, texts)."""
    try:
        if isinstance(choices, dict):
            return [str(label) for label in choices["label"]], [str(text).strip() for text in choices["text"]]
        return [str(choice["label"]) for choice in choices], [str(choice["text"]).strip() for choice in choices]
    except (KeyError, TypeError) as error:
        raise MeritError(f"multiple_choice: choices are expected as label and text, got {choices!r}"[:300]) from error


def ask(question: str, texts: list[str]) -> str:
    """The question with its options below it, as the team sees it."""
    return "\n".join(
        [question.strip(), *(f"{letter}) {text}" for letter, text in zip(string.ascii_uppercase, texts, strict=False))]
    )
