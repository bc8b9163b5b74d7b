"""The stage `grade`: puts a verdict on every trace, and on every turn of its own that carries an answer.

The stage `refill` counts, after a wave of plays, how many groups that differ in outcome a round still wants.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from apps import leaf
from apps.inference import app as inference_app
from apps.inference import outside, traces
from apps.records import Graded, Task, Trace, Verdict
from apps.reward import variance, verdicts
from apps.tasks import app as tasks_app

ANSWERING = verdicts.ANSWERING

Texts = Sequence[tuple[Task, str]]


def grade(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """Writes `verdicts.jsonl` for the traces of the shard `rollout`.

    A verifier that asks a model takes one that was trained in this very run as input `verifier`.
    """
    tasks = {task.id: task for task in tasks_app.read(inputs["tasks"][0])}
    duties = leaf.find("topologies", options["topology"]["name"]).DUTIES
    played = traces.read(inputs["rollout"][0] / traces.FILE)
    texts = list(dict.fromkeys((tasks[t.task], text) for t in played for text in answers(t, duties)))
    known = dict(zip(texts, verifying(inputs, options)(texts), strict=True))
    graded = [judge(tasks[trace.task], trace, duties, lambda *text: known[text]) for trace in played]
    verdicts.write(out, graded)
    return {"traces": len(graded), "reward": sum(g.verdict.score for g in graded) / max(1, len(graded))}


def verifying(inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> Callable[[Texts], list[Verdict]]:
    """What gives the verdicts of texts: all at once, since a verifier that asks a model asks about all together."""
    section, options = options["verifier"], inference_app.based(inputs, options)
    module, chosen = leaf.find("reward", section["name"]), leaf.options("reward", section)
    if not hasattr(module, "asked"):
        return lambda texts: [module.verify(task, text, chosen) for task, text in texts]

    def ask(texts: Texts) -> list[Verdict]:
        if not texts:
            return []
        asked = [module.asked(task, text, chosen) for task, text in texts]
        flat = [(task, question) for (task, _), questions in zip(texts, asked, strict=True) for question in questions]
        who, home = outside.speakers(section, inputs.get("verifier", ()), options), outside.home(section, options)
        found = iter(outside.answers(flat, inference_app.ready(who, home), who, chosen, options["seed"]))
        return [
            module.verdict(text, [next(found) for _ in questions], chosen)
            for (_, text), questions in zip(texts, asked, strict=True)
        ]

    return ask


def answers(trace: Trace, duties: Mapping[str, str]) -> list[str]:
    """The texts of a trace that are graded: its answer, and the turns that carry one."""
    return [trace.answer, *(turn.text for turn in trace.turns if duties.get(turn.agent) in ANSWERING)]


def judge(task: Task, trace: Trace, duties: Mapping[str, str], verify: Callable[[Task, str], Verdict]) -> Graded:
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
