"""The figures of a team, from its graded plays: what is counted in each task, and what the counts come to.

A figure is a share, or a sum of shares: {value, low, high, n}, the ends those of its 95 % interval over tasks
(statistics.py), n its observations: tasks for an accuracy, plays or a role's turns for the others. `turns` and `tokens`
are plain means.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from apps import answer
from apps.evaluation import metrics, statistics
from apps.records import Graded, Verdict

KS = (1, 2, 4, 8, 16, 32)
PART = "part"  # the first word of a share that is reported only as part of a sum

Name = tuple[str, ...]  # where a figure stands: ("roles", "critic", "recall")
Count = tuple[float, int]  # how many, of how many


def figures(graded: Sequence[Graded], duties: Mapping[str, str]) -> dict[str, Any]:
    """All figures of a team and each task's scores. `single` is its solver alone: the first turn that carries an answer.

    Whatever the order of the plays, tasks stand in that of their ids.
    """
    by_task: dict[str, list[Graded]] = defaultdict(list)
    for g in sorted(graded, key=lambda g: g.trace.task):
        by_task[g.trace.task].append(g)
    ks = [k for k in KS if k <= min(map(len, by_task.values()))]
    found = nested(estimated([counts(plays, duties, ks) for plays in by_task.values()], sums(duties)))
    found["collaboration_efficiency"]["n"] = len(by_task)
    for role in (role for role, duty in duties.items() if duty == "check"):
        found["roles"][role] |= dataclasses.asdict(detection(role, graded))
    return {
        "n": len(by_task),
        "samples": len(graded) // len(by_task),
        **found,
        "turns": float(np.mean([len(g.trace.turns) for g in graded])),
        "tokens": float(np.mean([sum(len(t.completion_ids) for t in g.trace.turns) for g in graded])),
        "scores": {task: [g.verdict.score for g in plays] for task, plays in by_task.items()},
        "drafts": {task: [draft(g) for g in plays] for task, plays in by_task.items()},
    }


def counts(plays: Sequence[Graded], duties: Mapping[str, str], ks: Sequence[int]) -> dict[Name, Count]:
    """What the plays of one task say of every share."""
    first, last = [draft(g) >= 0.5 for g in plays], [g.verdict.right for g in plays]
    team, single = float(np.mean([g.verdict.score for g in plays])), float(np.mean([draft(g) for g in plays]))
    parsed = [g.verdict.parsed for g in plays]
    found: dict[Name, Count] = {
        ("accuracy",): (team, 1),
        ("single",): (single, 1),
        (PART, "gained"): (max(0.0, team - single), 1),
        (PART, "lost"): (max(0.0, single - team), 1),
        ("convergence",): count([g.trace.converged for g in plays]),
        ("error_correction",): count(metrics.corrections(first, last)),
        ("error_introduction",): count(metrics.introductions(first, last)),
        ("unparsed",): count([answer is None for answer in parsed]),
    }
    found |= {("pass_at", str(k)): (metrics.pass_at_k(len(plays), sum(last), k), 1) for k in ks}
    found |= {("majority_at", str(k)): (metrics.majority_at_k(parsed, last, k), 1) for k in ks}
    for role, duty in duties.items():
        found |= of_role(role, duty, plays)
    return found


def of_role(role: str, duty: str, plays: Sequence[Graded]) -> dict[Name, Count]:
    """The shares of one role by its duty."""
    if duty == "check":
        critic = detection(role, plays)
        shown = {("roles", role, name): getattr(critic, name) for name in ("precision", "recall")}
        return {**shown, (PART, role, "specificity"): critic.specificity}
    turns = list(answers(role, plays))
    if duty == "solve":
        return {("roles", role, "accuracy"): count([v.right for _, v in turns])}
    pairs = [(before, v) for before, v in turns if before is not None]
    flags = {"accuracy": [v.right for _, v in pairs]}
    if duty == "report":
        flags["misread"] = metrics.misreads([before.parsed for before, _ in pairs], [v.parsed for _, v in pairs])
    else:
        right = [before.right for before, _ in pairs], flags["accuracy"]
        flags |= {"wrong_to_right": metrics.corrections(*right), "right_to_wrong": metrics.introductions(*right)}
    return {("roles", role, name): count(given) for name, given in flags.items()}


def sums(duties: Mapping[str, str]) -> dict[Name, dict[Name, float]]:
    """The figures that are sums of shares, with the weight of each.

    Collaboration efficiency is what the team gained over its solver, less what it lost, task by task.
    """
    each = metrics.collaboration_efficiency(1.0, 0.0, len(duties))
    found = {("collaboration_efficiency",): {(PART, "gained"): each, (PART, "lost"): -each}}
    for role in (role for role, duty in duties.items() if duty == "check"):
        parts = ("roles", role, "recall"), (PART, role, "specificity")
        found["roles", role, "balanced_accuracy"] = dict.fromkeys(parts, 0.5)
    return found


def estimated(
    tasks: Sequence[Mapping[Name, Count]], added: Mapping[Name, Mapping[Name, float]]
) -> dict[Name, dict[str, float]]:
    """Each share but the parts, and each sum, over all tasks with its interval."""
    names = list(tasks[0])
    hits, of = np.array([[task[name] for name in names] for task in tasks], np.float64).transpose(2, 0, 1)
    wanted = {name: {name: 1.0} for name in names if name[0] != PART} | dict(added)
    weights = np.array([[parts.get(name, 0.0) for name in names] for parts in wanted.values()])
    return dict(zip(wanted, map(dataclasses.asdict, statistics.estimates(hits, of, weights)), strict=True))


def nested(flat: Mapping[Name, Any]) -> dict[str, Any]:
    """The same with a dictionary for each word of a name."""
    found: dict[str, Any] = {}
    for *places, last in flat:
        inner = found
        for place in places:
            inner = inner.setdefault(place, {})
        inner[last] = flat[(*places, last)]
    return found


def count(flags: Sequence[bool]) -> Count:
    return sum(flags), len(flags)


def draft(g: Graded) -> float:
    """The score of the first answer on the way; 0 where there is none."""
    return next((v.score for v in g.turn_verdicts if v is not None), 0.0)


def answers(role: str, plays: Sequence[Graded]) -> Iterator[tuple[Verdict | None, Verdict]]:
    """The verdicts of a role's turns that carry an answer, each with that of the last answer before it."""
    for g in plays:
        for i, (turn, v) in enumerate(zip(g.trace.turns, g.turn_verdicts, strict=True)):
            if turn.agent == role and v is not None:
                yield g.before(i), v


def detection(role: str, plays: Sequence[Graded]) -> metrics.Detection:
    """A critic's own verdicts against the answers that it looked at."""
    said, wrong = [], []
    for g in plays:
        for i, turn in enumerate(g.trace.turns):
            if turn.agent == role and (before := g.before(i)) is not None:
                verdict = answer.verdict(turn.text)
                said.append(None if verdict is None else not verdict)
                wrong.append(not before.right)
    return metrics.detection(said, wrong)
