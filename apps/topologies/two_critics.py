"""A solver drafts, two critics check the draft without seeing each other's review, a reviser repairs if either objects.

The critics are redundant: what one of them waves through the other may still catch, and either of them alone can send a
right draft to the reviser. An absent critic raises no objection, an absent reviser leaves the draft as it is.
"""

from __future__ import annotations

from apps import records
from apps.answer import verdict
from apps.effects import Answer, Ask, Playing
from apps.records import Task

DUTIES = {"solver": "solve", "critic_a": "check", "critic_b": "check", "reviser": "revise"}
ROLES = tuple(DUTIES)
PROMPTS = {
    "solver": "Solve: {question}",
    "critic_a": "Check: {question} Solution: {draft}",
    "critic_b": "Check: {question} Solution: {draft}",
    "reviser": "Revise: {question} Solution: {draft} Critiques: {review}",
}


class Options(records.Options):
    """Nothing to choose."""


def play(task: Task, options: Options) -> Playing:
    draft = yield Ask("solver", {"question": task.question})
    seen = {"question": task.question, "draft": draft}
    reviews = []
    for critic in ("critic_a", "critic_b"):
        reviews.append((yield Ask(critic, seen, bypass="VERDICT: CORRECT")))
    agreed = all(verdict(review) is True for review in reviews)
    if agreed:
        return Answer(draft)
    answer = yield Ask("reviser", {**seen, "review": "\n".join(reviews)}, bypass=draft)
    return Answer(answer, converged=False)
