"""A solver drafts, a critic checks, a reviser repairs until the critic agrees, a verifier reports the answer.

An absent critic raises no objection, an absent reviser leaves the draft as it is, an absent verifier hands the draft
on. Nobody can stand in for the solver but another model. A review without a parsable verdict is no agreement.
"""

from __future__ import annotations

from pydantic import Field

from apps import records
from apps.answer import verdict
from apps.effects import Answer, Ask, Playing
from apps.records import Task

DUTIES = {"solver": "solve", "critic": "check", "reviser": "revise", "verifier": "report"}
ROLES = tuple(DUTIES)
PROMPTS = {
    "solver": "Solve: {question}",
    "critic": "Check: {question} Solution: {draft}",
    "reviser": "Revise: {question} Solution: {draft} Critique: {review}",
    "verifier": "Report: {draft}",
}


class Options(records.Options):
    """How long the team may argue."""

    rounds: int = Field(1, ge=1, description="critiques at most; after the last one's revision the verifier reports")


def play(task: Task, options: Options) -> Playing:
    draft = yield Ask("solver", {"question": task.question})
    agreed = False
    for _ in range(options.rounds):
        seen = {"question": task.question, "draft": draft}
        review = yield Ask("critic", seen, bypass="VERDICT: CORRECT")
        agreed = verdict(review) is True
        if agreed:
            break
        draft = yield Ask("reviser", {**seen, "review": review}, bypass=draft)
    report = yield Ask("verifier", {"question": task.question, "draft": draft}, bypass=draft)
    return Answer(report, converged=agreed)
