"""The credit stages: `replay` plays what a method asks for, `assign` turns the outcomes into values.

A method is a generator. `replay` runs it against the model and records every wave of outcomes; `assign` runs it
again on the record, so values can be worked out anew without a model.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from apps import leaf
from apps.credit import results
from apps.inference import app as inference_app
from apps.inference import traces
from apps.inference.driver import Start, Voice, perform
from apps.records import Credit, Group, MeritError, Outcome, Replay
from apps.reward import verdicts
from apps.tasks import app as tasks_app


def replay(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """Plays every replay that the method asks for, the groups of a shard together."""
    started = time.perf_counter()
    groups = read_groups(inputs, options)
    module, chosen = _method(options)
    speaking = inference_app.voice(inputs["policies"][0], options)
    verifier, tuned = leaf.find("reward", options["verifier"]["name"]), leaf.options("reward", options["verifier"])
    running = [module.assign(group, chosen) for group in groups]
    waves: list[list[results.Wave]] = [[] for _ in groups]
    wanted = {i: asked for i, method in enumerate(running) if (asked := _advance(method, None)) is not None}
    while wanted:
        order = [(i, r) for i in sorted(wanted) for r in wanted[i]]
        outcomes = outcomes_of(
            [(groups[i], r) for i, r in order], speaking, lambda task, text: verifier.verify(task, text, tuned)
        )
        for i in sorted(wanted):
            mine, outcomes = outcomes[: len(wanted[i])], outcomes[len(wanted[i]) :]
            waves[i].append((wanted[i], mine))
        wanted = {i: asked for i in sorted(wanted) if (asked := _advance(running[i], waves[i][-1][1])) is not None}
    results.write_replays(out, [(group.task.id, waves[i]) for i, group in enumerate(groups)])
    count = sum(len(asked) for played in waves for asked, _ in played)
    return {
        "replays": count,
        "turns": speaking.turns,
        "tokens": speaking.tokens,
        "seconds": time.perf_counter() - started,
    }


def assign(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """Values for every trace of a shard of whole groups."""
    module, chosen = _method(options)
    recorded = results.read_replays(inputs["replay"][0]) if "replay" in inputs else {}
    credit: list[Credit] = []
    for group in read_groups(inputs, options):
        credit += given(module.assign(group, chosen), recorded.get(group.task.id, []))
    if options.get("shuffle") is not None:
        credit = shuffled(credit, options["shuffle"])
    results.write(out, credit)
    return {"traces": len(credit)}


def given(method, waves: Sequence[results.Wave]) -> list[Credit]:
    """What a method returns when it is told the recorded outcomes."""
    sent = None
    for asked, outcomes in waves:
        if _advance(method, sent) != asked:
            raise MeritError("the method asks for other replays than were recorded; run the stage `replay` again")
        sent = outcomes
    try:
        method.send(sent)
    except StopIteration as end:
        return end.value
    raise MeritError("the method asks for more replays than were recorded; run the stage `replay` again")


def outcomes_of(wanted: Sequence[tuple[Group, Replay]], speaking: Voice, verify: Callable) -> list[Outcome]:
    """Plays replays of any groups together."""
    played = perform([start_of(group, r) for group, r in wanted], speaking)
    found = []
    for (group, r), trace in zip(wanted, played, strict=True):
        verdict = verify(group.task, trace.answer)
        known = {id(turn.completion_ids) for turn in group.graded[r.trace].trace.turns}
        fresh = [t for t in trace.turns if t.finish != "substitute" and id(t.completion_ids) not in known]
        tokens = sum(len(t.completion_ids) for t in fresh)
        found.append(Outcome(verdict.score, verdict.parsed or "", len(fresh), tokens))
    return found


def start_of(group: Group, r: Replay) -> Start:
    """A replay as the driver plays it."""
    trace = group.graded[r.trace].trace
    return Start(
        task=group.task,
        sample="",  # all traces of a task share their replays' random numbers: what they have in common is played once
        recorded=trace.turns[: r.keep],
        pool=() if r.fresh else trace.turns,
        absent=dict(r.absent),
        salt=f"replay/{r.repeat}",
    )


def read_groups(inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> list[Group]:
    """The groups of one shard: all traces of a task stand together."""
    tasks = {task.id: task for task in tasks_app.read(inputs["tasks"][0])}
    graded = verdicts.read(inputs["grade"][0], traces.read(inputs["rollout"][0] / traces.FILE))
    roles = leaf.find("topologies", options["topology"]["name"]).ROLES
    return [Group(tasks[name], tuple(same), roles) for name, same in groupby(graded, key=lambda g: g.trace.task)]


def shuffled(credit: Sequence[Credit], seed: str) -> list[Credit]:
    """The control experiment: the same values, dealt out at random among all turns of the shard."""
    import numpy as np

    from apps.inference.driver import seed_of

    values = [value for c in credit for value in c.values]
    order = iter(np.random.default_rng(seed_of(seed, "shuffled")).permutation(len(values)))
    return [Credit(c.trace, tuple(values[next(order)] for _ in c.values), (0.0,) * len(c.values)) for c in credit]


def _method(options: Mapping[str, Any]):
    return leaf.find("credit", options["credit"]["name"]), leaf.options("credit", options["credit"])


def _advance(method, sent: list[Outcome] | None) -> list[Replay] | None:
    """What the method asks for next; None when it is done."""
    try:
        return list(method.send(sent))
    except StopIteration:
        return None
