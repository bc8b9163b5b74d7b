"""The credit stages: `replay` finds out what a method asks, `assign` turns what was found into values.

A method is a generator of questions. `replay` runs it against the models and records every question with what came of
it; `assign` runs it again on the record, so values can be worked out anew without a model. Several methods may share one
record: what two of them ask is played once.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from apps import leaf
from apps.credit import results
from apps.inference import app as inference_app
from apps.inference import outside, traces
from apps.inference.driver import Start, Voice, perform
from apps.records import (
    Consult,
    Credit,
    Finding,
    Group,
    MeritError,
    Outcome,
    Question,
    Rate,
    Replay,
    Reward,
    Task,
    Trace,
    Turn,
    Verdict,
)
from apps.reward import app as reward_app
from apps.reward import verdicts
from apps.tasks import app as tasks_app

CALIBRATION = "calibration.json"


def replay(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """Finds out all that the method, or each of `methods`, asks; the groups of a shard together.

    Models that were trained in this very run, and are asked besides the team, are the inputs `reward_model` (by the method)
    and `verifier`.
    """
    began = time.perf_counter()
    groups, options = read_groups(inputs, options), inference_app.based(inputs, options)
    verifying = reward_app.verifying(inputs, options)
    speaking = inference_app.voice(inputs["policies"][0], options)
    found: list[dict[Question, Finding]] = [{} for _ in groups]

    def verify(texts: reward_app.Texts) -> list[Verdict]:
        speaking.engine = None  # a reward model may bring a base model of its own
        return verifying(texts)

    def find_out(section: Mapping[str, Any], asked: Sequence[tuple[int, Question]]) -> None:
        replays = [(i, q) for i, q in asked if isinstance(q, Replay)]
        others = [(i, q) for i, q in asked if isinstance(q, Consult | Rate | Reward)]
        if replays:  # a judge may have brought a base model of its own, and there is one in memory at a time
            speaking.engine = inference_app.engine_of(options)
        came = outcomes_of([(groups[i], q) for i, q in replays], speaking, verify)
        for (i, question), outcome in zip(replays, came, strict=True):
            found[i][question] = outcome
        if others:
            speaking.engine = None
        said = _asked_outside([(groups[i].task, q) for i, q in others], section, inputs, options)
        for (i, question), reply in zip(others, said, strict=True):
            found[i][question] = reply

    for section in options.get("methods") or [options["credit"]]:
        investigate([started(section, group) for group in groups], found, partial(find_out, section))
    results.write_replays(out, {group.task.id: found[i] for i, group in enumerate(groups)})
    return {
        "replays": sum(isinstance(question, Replay) for findings in found for question in findings),
        "questions": sum(map(len, found)),
        "turns": speaking.turns,
        "tokens": speaking.tokens,
        "seconds": time.perf_counter() - began,
    }


def _asked_outside(
    asked: Sequence[tuple[Task, Consult | Rate | Reward]],
    section: Mapping[str, Any],
    inputs: Mapping[str, Sequence[Path]],
    options: Mapping[str, Any],
) -> list[Finding]:
    """What a judge or a reward model answers to a method's questions."""
    if not asked:
        return []
    who, home = outside.speakers(section, inputs.get("reward_model", ()), options), outside.home(section, options)
    tuned = leaf.options("credit", dict(section))
    return outside.answers(asked, inference_app.ready(who, home), who, tuned, options["seed"])


def assign(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """Values for every trace of a shard of whole groups, and what they cost."""
    began = time.perf_counter()
    recorded = results.read_replays(inputs["replay"][0]) if "replay" in inputs else {}
    section = {**options["credit"], **_calibration(inputs)}
    credit: list[Credit] = []
    used: list[Finding] = []
    for group in read_groups(inputs, options):
        credit += given(started(section, group), recorded.get(group.task.id, {}), used)
    if options.get("shuffle") is not None:
        credit = shuffled(credit, options["shuffle"])
    results.write(out, credit)
    residuals = [abs(c.residual) for c in credit if c.residual is not None]
    return {
        "traces": len(credit),
        "replays": sum(isinstance(finding, Outcome) for finding in used),
        "questions": len(used),
        "replayed_tokens": sum(getattr(f, "sampled_tokens", 0) + getattr(f, "read_tokens", 0) for f in used),
        "residual": max(residuals, default=None),
        "seconds": time.perf_counter() - began,
    }


def calibrate(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """What the replies of a judge are worth, from all shards together: options that `assign` gives to the method."""
    module, total = leaf.find("credit", options["credit"]["name"]), Counter()
    tuned = leaf.options("credit", dict(options["credit"]))
    for rollout, grade, asked in zip(inputs["rollout"], inputs["grade"], inputs["replay"], strict=True):
        recorded = results.read_replays(asked)
        for group in read_groups({**inputs, "rollout": [rollout], "grade": [grade]}, options):
            total += given(module.tally(group, tuned), recorded.get(group.task.id, {}))
    measured, figures = module.calibrate(total)
    (out / CALIBRATION).write_text(json.dumps(measured, indent=1) + "\n")
    return figures


def investigate(
    running: Sequence[Any],
    found: Sequence[dict[Question, Finding]],
    find_out: Callable[[Sequence[tuple[int, Question]]], None],
) -> None:
    """Drives methods to their ends, wave by wave; what stands in `found` already is not asked again."""
    wanted = {i: asked for i, method in enumerate(running) if (asked := _advance(method, None)) is not None}
    while wanted:
        new = dict.fromkeys((i, q) for i in sorted(wanted) for q in wanted[i] if q not in found[i])
        find_out(list(new))
        sent = {i: [found[i][q] for q in asked] for i, asked in wanted.items()}
        wanted = {i: asked for i in sorted(sent) if (asked := _advance(running[i], sent[i])) is not None}


def given(method, findings: results.Findings, used: list[Finding] | None = None) -> list[Credit]:
    """What a method returns when it is told what was recorded; that is added to `used`, each finding once."""
    told: dict[Question, Finding] = {}
    sent = None
    while True:
        try:
            asked = list(method.send(sent))
        except StopIteration as end:
            if used is not None:
                used += told.values()
            return end.value
        if missing := [question for question in asked if question not in findings]:
            raise MeritError(
                f"the method asks {len(missing)} questions that were not recorded, {missing[0]} for one; "
                "run the stage `replay` again with this method and these options"
            )
        sent = [findings[question] for question in asked]
        told.update(zip(asked, sent, strict=True))


def outcomes_of(
    wanted: Sequence[tuple[Group, Replay]], speaking: Voice, verify: Callable[[reward_app.Texts], list[Verdict]]
) -> list[Outcome]:
    """Plays replays of any groups together, and has their answers judged."""
    played = perform([start_of(group, r) for group, r in wanted], speaking)
    judged = verify([(group.task, trace.answer) for (group, _), trace in zip(wanted, played, strict=True)])
    found = []
    for (group, r), trace, verdict in zip(wanted, played, judged, strict=True):
        known = {id(turn.completion_ids) for turn in group.graded[r.trace].trace.turns}
        fresh = [t for t in trace.turns if t.finish != "substitute" and id(t.completion_ids) not in known]
        found.append(
            Outcome(
                verdict.score,
                verdict.parsed or "",
                len(fresh),
                sum(len(t.completion_ids) for t in fresh),
                tuple((t.path, t.stand_in) for t in trace.turns[r.keep :] if t.stand_in),
                trace.turns[r.keep].text if r.fresh == "next" else "",
            )
        )
    return found


def start_of(group: Group, r: Replay) -> Start:
    """A replay as the driver plays it."""
    trace = group.graded[r.trace].trace
    return Start(
        task=group.task,
        sample="",  # all traces of a task share their replays' random numbers: what they have in common is played once
        recorded=trace.turns[: r.keep],
        pool=_reusable(trace, r),
        absent=dict(r.absent),
        cached=_cached(group, r) if "cached" in dict(r.absent).values() else (),
        fresh=trace.turns[r.keep].path if r.fresh == "next" else "",
        salt=f"replay/{r.repeat}",
    )


def _reusable(trace: Trace, r: Replay) -> tuple[Turn, ...]:
    """The recorded turns that may be reused where their prompt is unchanged."""
    if r.fresh == "rest":
        return ()
    return tuple(turn for i, turn in enumerate(trace.turns) if not (r.fresh == "next" and i == r.keep))


def _cached(group: Group, r: Replay) -> tuple[Turn, ...]:
    """What was said in the other plays of the task, from the one after this one on; another one for every repeat."""
    own = {id(turn.completion_ids) for turn in group.graded[r.trace].trace.turns}
    others = [g.trace for g in (*group.graded[r.trace + 1 :], *group.graded[: r.trace])]
    start = r.repeat % len(others) if others else 0
    said = [turn for trace in (*others[start:], *others[:start]) for turn in trace.turns]
    return tuple(turn for turn in said if id(turn.completion_ids) not in own)


def read_groups(inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> list[Group]:
    """The groups of one shard: all traces of a task stand together."""
    tasks = {task.id: task for task in tasks_app.read(inputs["tasks"][0])}
    graded = verdicts.read(inputs["grade"][0], traces.read(inputs["rollout"][0] / traces.FILE))
    team = leaf.find("topologies", options["topology"]["name"])
    return [
        Group(tasks[name], tuple(same), team.ROLES, team.DUTIES)
        for name, same in groupby(graded, key=lambda g: g.trace.task)
    ]


def shuffled(credit: Sequence[Credit], seed: str) -> list[Credit]:
    """The control experiment: the same values, dealt out at random among all turns of the shard."""
    import numpy as np

    from apps.inference.driver import seed_of

    values = [value for c in credit for value in c.values]
    order = iter(np.random.default_rng(seed_of(seed, "shuffled")).permutation(len(values)))
    return [Credit(c.trace, tuple(values[next(order)] for _ in c.values), (0.0,) * len(c.values)) for c in credit]


def _calibration(inputs: Mapping[str, Sequence[Path]]) -> dict[str, Any]:
    return json.loads((inputs["calibration"][0] / CALIBRATION).read_text()) if "calibration" in inputs else {}


def started(section: Mapping[str, Any], group: Group):
    """The method of a configuration's section, started on a group."""
    return leaf.find("credit", section["name"]).assign(group, leaf.options("credit", dict(section)))


def _advance(method, sent: list[Finding] | None) -> list[Question] | None:
    """What the method asks next; None when it is done."""
    try:
        return list(method.send(sent))
    except StopIteration:
        return None
