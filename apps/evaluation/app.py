"""The evaluation stages: `measure` turns graded plays into figures, `promote` decides who plays on."""

from __future__ import annotations

import dataclasses
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from apps import leaf, policies
from apps.evaluation import metrics, promotion, statistics
from apps.inference import traces
from apps.records import Graded
from apps.reward import verdicts
from apps.topologies import formats

FILE = "scores.json"
KS = (1, 2, 4, 8, 16, 32)


def measure(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """Writes `scores.json`: the figures of a team on a set of tasks, and every task's scores for paired tests."""
    graded = []
    for played, judged in zip(inputs["rollout"], inputs["grade"], strict=True):
        graded += verdicts.read(judged, traces.read(played / traces.FILE))
    duties = leaf.find("topologies", options["topology"]["name"]).DUTIES
    scores = figures(graded, duties)
    (out / FILE).write_text(json.dumps(scores, indent=1, default=float) + "\n")
    return {"accuracy": scores["accuracy"]["value"], "single": scores["single"]["value"], "n": scores["n"]}


def promote(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """The team that plays on: the candidate where the paired test on the same tasks allows it, else the incumbent.

    `agents` are those whose adapters the candidate brings; the decision is told with their names.
    """
    before, after = (read(inputs[name][0]) for name in ("scores", "candidate_scores"))
    decision = promotion.decide(
        matrix(before), matrix(after), options["promotion"]["rule"], options["promotion"]["alpha"]
    )
    policies.adopt(out, inputs["candidate" if decision.promoted else "policies"][0])
    kept = after if decision.promoted else before
    (out / FILE).write_text(json.dumps(kept) + "\n")
    return {**dataclasses.asdict(decision), "agents": list(options["agents"])}


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / FILE).read_text())


def matrix(scores: Mapping[str, Any], key: str = "scores") -> np.ndarray:
    """Scores (tasks, samples), tasks in the order of their ids."""
    return np.array([scores[key][task] for task in sorted(scores[key])], np.float64)


def figures(graded: Sequence[Graded], duties: Mapping[str, str]) -> dict[str, Any]:
    """All figures of a team. `single` is its solver alone: the first turn that carries an answer."""
    by_task: dict[str, list[Graded]] = defaultdict(list)
    for g in graded:
        by_task[g.trace.task].append(g)
    scores = {task: [g.verdict.score for g in same] for task, same in by_task.items()}
    drafts = {task: [_drafts(g)[0] for g in same] for task, same in by_task.items()}
    team, single = _mean(scores), _mean(drafts)
    first = [_drafts(g)[0] >= 0.5 for g in graded]
    last = [g.verdict.right for g in graded]
    return {
        "n": len(by_task),
        "samples": len(graded) // max(1, len(by_task)),
        "accuracy": team,
        "single": single,
        "convergence": metrics.convergence_rate([g.trace.converged for g in graded]),
        "error_correction": metrics.error_correction_rate(first, last),
        "error_introduction": metrics.error_introduction_rate(first, last),
        "collaboration_efficiency": metrics.collaboration_efficiency(team["value"], single["value"], len(duties)),
        "unparsed": metrics.share([g.verdict.parsed is None for g in graded]),
        "turns": float(np.mean([len(g.trace.turns) for g in graded])),
        "tokens": float(np.mean([sum(len(t.completion_ids) for t in g.trace.turns) for g in graded])),
        "pass_at": _at_k(by_task, lambda same, k: metrics.pass_at_k(len(same), sum(g.verdict.right for g in same), k)),
        "majority_at": _at_k(
            by_task,
            lambda same, k: metrics.majority_at_k([g.verdict.parsed for g in same], [g.verdict.right for g in same], k),
        ),
        "roles": {role: _role(role, duty, graded) for role, duty in duties.items()},
        "scores": scores,
        "drafts": drafts,
    }


def _drafts(g: Graded) -> list[float]:
    """Whether each answer on the way was right."""
    return [v.score for v in g.turn_verdicts if v is not None] or [0.0]


def _mean(scores: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """The mean over tasks with its 95 % interval: Wilson's for one sample a task, else a bootstrap over tasks."""
    rows = [scores[task] for task in sorted(scores)]
    if all(len(row) == 1 for row in rows):
        interval = statistics.wilson(sum(row[0] for row in rows), len(rows))
    else:
        interval = statistics.bootstrap(np.array([np.mean(row) for row in rows]))
    value = float(np.mean([np.mean(row) for row in rows])) if rows else float("nan")
    return {"value": value, "low": interval.low, "high": interval.high, "n": len(rows)}


def _at_k(by_task: Mapping[str, Sequence[Graded]], figure) -> dict[str, float]:
    least = min((len(same) for same in by_task.values()), default=0)
    return {str(k): float(np.mean([figure(same, k) for same in by_task.values()])) for k in KS if k <= least}


def _role(role: str, duty: str, graded: Sequence[Graded]) -> dict[str, Any]:
    """The figures of one role by its duty; a share comes with its interval and its count."""
    if duty == "check":
        return _critic(role, graded)
    if duty == "solve":
        return {"accuracy": _share([v.right for g, i, v in _own(role, graded)])}
    pairs = [(before, v) for g, i, v in _own(role, graded) if (before := _latest(g, i)) is not None]
    if duty == "report":
        misread = metrics.misreads([before.parsed for before, _ in pairs], [v.parsed for _, v in pairs])
        return {"misread": _share(misread), "accuracy": _share([v.right for _, v in pairs])}
    return {
        "wrong_to_right": _share([v.right for before, v in pairs if not before.right]),
        "right_to_wrong": _share([not v.right for before, v in pairs if before.right]),
        "accuracy": _share([v.right for _, v in pairs]),
    }


def _critic(role: str, graded: Sequence[Graded]) -> dict[str, Any]:
    said, wrong = [], []
    for g in graded:
        for i, turn in enumerate(g.trace.turns):
            before = _latest(g, i)
            if turn.agent == role and before is not None:
                verdict = formats.verdict(turn.text)
                said.append(None if verdict is None else not verdict)
                wrong.append(not before.right)
    found = metrics.detection(said, wrong)
    interval = statistics.balanced_accuracy(found)
    balanced = {"value": found.balanced_accuracy, "low": interval.low, "high": interval.high, "n": len(said)}
    return {
        "balanced_accuracy": balanced,
        "precision": found.precision,
        "recall": found.recall,
        **dataclasses.asdict(found),
    }


def _own(role: str, graded: Sequence[Graded]):
    """The turns of a role that carry an answer: (graded, index, verdict)."""
    for g in graded:
        for i, (turn, v) in enumerate(zip(g.trace.turns, g.turn_verdicts, strict=True)):
            if turn.agent == role and v is not None:
                yield g, i, v


def _latest(g: Graded, index: int):
    """The verdict of the last answer before turn `index`."""
    return next((v for v in reversed(g.turn_verdicts[:index]) if v is not None), None)


def _share(flags: Sequence[bool]) -> dict[str, float]:
    interval = statistics.wilson(sum(flags), len(flags))
    return {"value": metrics.share(flags), "low": interval.low, "high": interval.high, "n": len(flags)}
