r"""MATH: competition problems in LaTeX, by subject and level 1-5 (Hendrycks et al., arXiv 2103.03874).

7,500 training and 5,000 test problems. A row is `problem`, `solution`, `level` ("Level 3" or 3) and `type` or `subject`.
The gold answer is the column `answer` where there is one (MATH-500 has it), else the solution's last \boxed{…}.
A few problems are published without a level ("Level ?"): level 0.
"""

from __future__ import annotations

from pydantic import Field

from apps import leaf
from apps.answer import last_box
from apps.records import MeritError, Task
from apps.tasks import source

VERIFIER = "math"
SUBJECTS = (
    "Algebra",
    "Counting & Probability",
    "Geometry",
    "Intermediate Algebra",
    "Number Theory",
    "Prealgebra",
    "Precalculus",
)


class Options(source.FileOptions):
    """Where the rows come from, and which of them."""

    hub: str = Field(
        "DigitalLearningGmbH/MATH-lighteval",
        description="name of the data set on the Hugging Face hub, for an empty path",
    )
    levels: tuple[int, ...] = Field((), description="only these levels, of 1-5; empty = all")
    subjects: tuple[str, ...] = Field((), description=f"only these subjects, of {', '.join(SUBJECTS)}; empty = all")


def load(split: str, options: Options) -> list[Task]:
    """The tasks of a split."""
    for subject in options.subjects:
        if subject not in SUBJECTS:
            raise MeritError(leaf.unknown("tasks.subjects", subject, list(SUBJECTS)))
    for level in options.levels:
        if level not in range(1, 6):
            raise MeritError(f"tasks.levels: there is no level {level} (known: 1, 2, 3, 4, 5)")

    def make(row: source.Row, split: str) -> Task | None:
        made = task(row, split)
        return made if wanted(made, options) else None

    return source.load("math", split, options, make)


def wanted(task: Task, options: Options) -> bool:
    """Whether a task passes the filters."""
    return (not options.levels or task.level in options.levels) and (
        not options.subjects or task.subject in options.subjects
    )


def task(row: source.Row, split: str) -> Task:
    """A row as a task."""
    question, solution = (str(source.column(row, name, where="math")).strip() for name in ("problem", "solution"))
    answer = str(row.get("answer") or last_box(solution) or "").strip()
    if not answer:
        raise MeritError(f"math: no \\boxed{{…}} in the solution of {question[:60]!r}: {solution[-60:]!r}")
    level = str(row.get("level", "")).removeprefix("Level").strip()
    subject = str(row.get("type") or row.get("subject") or "")
    level = int(level) if level.isdecimal() else 0
    return Task(source.identify("math", question), question, answer, "math", split, level, solution, subject)
