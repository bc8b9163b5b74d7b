"""GSM8K: grade-school word problems whose answer is a number (Cobbe et al., arXiv 2110.14168).

7,473 training and 1,319 test problems; no validation split is published, so a tenth of train serves as one. A row is
`question` and `answer`, the worked solution ending in "#### n". Calculator annotations ("<<48/2=24>>") stay in
the gold solution as published.
"""

from __future__ import annotations

from pydantic import Field

from apps.answer import GSM8K_MARKER, after
from apps.records import MeritError, Task
from apps.tasks import source

VERIFIER = "exact_number"


class Options(source.FileOptions):
    """Where the rows come from."""

    hub: str = Field("openai/gsm8k", description="name of the data set on the Hugging Face hub, for an empty path")
    hub_config: str = Field("main", description="which configuration of that data set")


def load(split: str, options: Options) -> list[Task]:
    """The tasks of a split."""
    return source.load("gsm8k", split, options, task)


def task(row: source.Row, split: str) -> Task:
    """A row as a task."""
    question, solution = (str(source.column(row, name, where="gsm8k")).strip() for name in ("question", "answer"))
    answer = after(solution, GSM8K_MARKER)
    if not answer:
        raise MeritError(f"gsm8k: no '{GSM8K_MARKER} n' in the answer of {question[:60]!r}: {solution[-60:]!r}")
    return Task(source.identify("gsm8k", question), question, answer, "gsm8k", split, solution=solution)
