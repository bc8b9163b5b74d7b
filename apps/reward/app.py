"""The stage `grade`: puts a verdict on every trace, and on every turn of its own that carries an answer.

The stage `refill` counts, after a wave of plays, how many groups that differ in outcome a round still wants.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from apps import leaf
from apps.inference import traces
from apps.records import Graded, Task, Trace
from apps.reward import variance, verdicts
from apps.tasks import app as tasks_app

ANSWERING = ("solve", "revise", "report")  # duties whose turns carry an answer


def grade(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """Writes `verdicts.jsonl` for the traces of the shard `rollout`."""
    tasks = {task.id: task for task in tasks_app.read(inputs["tasks"][0])}
    module, chosen = leaf.find("reward", options["verifier"]["name"]), leaf.options("reward", options["verifier"])
    duties = leaf.find("topologies", options["topology"]["name"]).DUTIES
    graded = [
        judge(tasks[trace.task], trace, duties, lambda task, text: module.verify(task, text, chosen))
        for trace in traces.read(inputs["rollout"][0] / traces.FILE)
    ]
    verdicts.write(out, graded)
    return {"traces": len(graded), "reward": sum(g.verdict.score for g in graded) / max(1, len(graded))}


def judge(task: Task, trace: Trace, duties: Mapping[str, str], verify) -> Graded:
    """The verdicts of one trace."""
    turns = tuple(verify(task, turn.text) if duties.get(turn.agent) in ANSWERING else None for turn in trace.turns)
    return Graded(trace, verify(task, trace.answer), turns)


def refill(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """Of the waves so far, given as shards `rollout` and `grade`: how many of `groups` varied groups are still wanted."""
    graded = [
        g
        for shard, judged in zip(inputs["rollout"], inputs["grade"], strict=True)
        for g in verdicts.read(judged, traces.read(shard / traces.FILE))
    ]
    scores = [(g.trace.task, g.verdict.score) for g in graded]
    facts = {
        "wanted": variance.wanting(options["groups"], scores),
        "varied": len(variance.varied(scores)),
        "played": len({task for task, _ in scores}),
    }
    verdicts.write_refill(out, facts)
    return facts
