"""MALT's chain (arXiv 2412.01928): a generator drafts, a verifier criticises, a refiner gives the final answer.

Always three turns, whatever the verdict. Meant for the sampling plan `tree` with branching 3.
"""

from __future__ import annotations

from apps import records
from apps.answer import verdict
from apps.effects import Answer, Ask, Playing
from apps.records import Task

DUTIES = {"generator": "solve", "verifier": "check", "refiner": "revise"}
ROLES = tuple(DUTIES)
PROMPTS = {
    "generator": "Solve: {question}",
    "verifier": "Check: {question} Solution: {draft}",
    "refiner": "Revise: {question} Solution: {draft} Critique: {review}",
}


class Options(records.Options):
    """Nothing to choose."""


def play(task: Task, options: Options) -> Playing:
    seen = {"question": task.question}
    seen["draft"] = yield Ask("generator", seen)
    seen["review"] = yield Ask("verifier", seen, bypass="VERDICT: CORRECT")
    answer = yield Ask("refiner", seen, bypass=seen["draft"])
    return Answer(answer, converged=verdict(seen["review"]) is True)
