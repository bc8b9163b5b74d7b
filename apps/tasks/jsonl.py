"""Your own questions: any file of rows, with the names of its columns and the verifier in the configuration.

    tasks: {name: jsonl, path: mine.jsonl, carve: true, fields: {question: prompt, answer: target}, verifier: math}

Despite its name it reads all that the other families read (.jsonl, .json, .csv, .parquet, a folder, the hub).
`verifier` names a file under apps/reward and wins over `VERIFIER`, which is only the default. For multiple_choice
`fields.choices` is a column with a list of texts without letters, and the answer is a letter or one of the texts.
"""

from __future__ import annotations

import string

from pydantic import Field

from apps import records
from apps.records import MeritError, Task
from apps.tasks import source
from apps.tasks.multiple_choice import ask

VERIFIER = "exact_number"


class Fields(records.Options):
    """Which column holds what; an empty name means that there is none."""

    question: str = Field("question", description="column with the question")
    answer: str = Field("answer", description="column with the gold answer, in the form that the verifier reads")
    solution: str = Field("", description="column with a worked solution")
    choices: str = Field("", description="column with the list of options, for multiple choice")
    level: str = Field("", description="column with a whole number, the difficulty")
    subject: str = Field("", description="column with the subject")


class Options(source.FileOptions):
    """Where the rows come from, what their columns mean, who grades them."""

    fields: Fields = Field(Fields(), description="names of the columns")
    verifier: str = Field(VERIFIER, description="the file under apps/reward that grades the answers")


def load(split: str, options: Options) -> list[Task]:
    """The tasks of a split."""
    return source.load("jsonl", split, options, lambda row, split: task(row, split, options.fields))


def task(row: source.Row, split: str, fields: Fields) -> Task:
    """A row as a task."""
    question, answer = (
        str(source.column(row, name, where="jsonl")).strip() for name in (fields.question, fields.answer)
    )
    choices = [str(text).strip() for text in optional(row, fields.choices, [])]
    if choices:
        answer = string.ascii_uppercase[choices.index(answer)] if choices.count(answer) == 1 else answer
        question = ask(question, choices)
    level = str(optional(row, fields.level, 0))
    if not level.isdecimal():
        raise MeritError(
            f"jsonl: tasks.fields.level={fields.level}: {level!r} of {question[:60]!r} is not a whole number"
        )
    solution, subject = (str(optional(row, name, "")) for name in (fields.solution, fields.subject))
    name = source.identify("jsonl", question)
    return Task(name, question, answer, "jsonl", split, int(level), solution, subject, tuple(choices))


def optional(row: source.Row, name: str, default: object) -> object:
    """The column `name`, or the default where no name is given."""
    return source.column(row, name, where="jsonl") if name else default
