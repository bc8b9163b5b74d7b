"""The stage `rollout`: plays a team on tasks and writes its traces."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from apps import leaf, policies
from apps.inference import rationale, traces
from apps.inference.best import Judge, grow_best
from apps.inference.driver import Start, Team, Voice, grow_tree, perform
from apps.inference.engine import Engine
from apps.inference.models import Models
from apps.inference.retell import retold
from apps.platform import devices
from apps.records import MeritError, Policy, Sampling, Task, Trace
from apps.reward import verdicts
from apps.tasks import app as tasks_app
from apps.training import canary

_engines: dict[str, Models] = {}  # stays loaded in this process between tasks
_heard: set[str] = set()  # digests of the policies whose canary sang to the engine that is loaded


def rollout(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """Traces of a shard of tasks under the team of `policies`."""
    started = time.perf_counter()
    tasks, options = tasks_of(inputs, options), based(inputs, options)
    speaking = voice(inputs["policies"][0], options)
    judge = judge_of(options) if options["plan"]["name"] == "best" else None
    played = play(tasks, options["plan"], speaking, judge)
    traces.write(out / traces.FILE, played)
    return {
        "traces": len(played),
        "turns": speaking.turns,
        "tokens": speaking.tokens,
        "seconds": time.perf_counter() - started,
    }


def retell(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """The traces of a teacher's `rollout` in the words of the team of `policies`: under its prompts, in its tokens."""
    started, known = time.perf_counter(), {}
    tasks = {task.id: task for task in tasks_app.read(inputs["tasks"][0])}
    pupil = voice(inputs["policies"][0], based(inputs, options))
    played = traces.read(inputs["rollout"][0] / traces.FILE)
    traces.write(out / traces.FILE, [retold(t, tasks[t.task], pupil.team, pupil.engine, known) for t in played])
    return {"traces": len(played), "turns": len(known), "seconds": time.perf_counter() - started}


def play(tasks: Sequence[Task], plan: Mapping[str, Any], speaking: Voice, judge: Judge | None = None) -> list[Trace]:
    """The traces of a sampling plan: `independent` samples of each task, a `tree` of all branches, or the `best` of each turn."""
    if plan["name"] == "tree":
        return grow_tree(tasks, plan["branching"], speaking)
    if plan["name"] == "best" and judge:
        return grow_best(tasks, plan["branching"], speaking, judge)
    if plan["name"] != "independent":
        raise MeritError(leaf.unknown("plan", plan["name"], ["independent", "tree", "best"]))
    called = plan.get("called", "")
    return perform([Start(task, f"{called}{k}") for task in tasks for k in range(plan["samples"])], speaking)


def judge_of(options: Mapping[str, Any]) -> Judge:
    """A candidate's worth: the score of the answer that its play came to, then that of its own words where they answer."""
    module, chosen = leaf.find("reward", options["verifier"]["name"]), leaf.options("reward", options["verifier"])
    duties = leaf.find("topologies", options["topology"]["name"]).DUTIES

    def judge(task: Task, trace: Trace, place: int) -> tuple[float, float]:
        turn = trace.turns[place]
        own = module.verify(task, turn.text, chosen).score if duties.get(turn.agent) in verdicts.ANSWERING else 0.0
        return module.verify(task, trace.answer, chosen).score, own

    return judge


def tasks_of(inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> list[Task]:
    """What is played: the tasks of this shard, or those that nobody got right in the shard `tried`, with a hint."""
    if "tried" not in inputs:
        return chosen_tasks(inputs, options)
    graded = verdicts.read(inputs["grade"][0], traces.read(inputs["tried"][0] / traces.FILE))
    known = {task.id: task for task in tasks_app.read(inputs["tasks"][0])}
    missed = rationale.missed((g.trace.task, g.verdict.right) for g in graded)
    return [rationale.hinted(known[name], options["hint"]) for name in missed]


def chosen_tasks(inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> list[Task]:
    """The tasks that `options["take"]` names: seed, start, count and window; in a later wave this shard's `part` of those wanted."""
    take = dict(options["take"])
    if "refill" in inputs:
        wanted = verdicts.wanted(inputs["refill"][0])
        number, shards = take.pop("part")
        low, high = (wanted * n // shards for n in (number, number + 1))
        take |= {"start": take["start"] + low, "count": high - low}
    return tasks_app.take(tasks_app.read(inputs["tasks"][0]), **take)


def based(inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options with the base model that an earlier stage of the run made, given as input `start`; else as they are."""
    return {**options, "model": str(inputs["start"][0])} if "start" in inputs else options


def voice(folder: Path, options: Mapping[str, Any]) -> Voice:
    """The team of a policies folder, ready to speak."""
    team_policies = policies.read(folder, options.get("places", {}), options.get("staging", ""))
    engine = ready(team_policies.values(), options)
    team = Team(
        topology=options["topology"]["name"],
        options={k: v for k, v in options["topology"].items() if k != "name"},
        prompts=options["prompts"],
        policies=team_policies,
        sampling=Sampling(**options["sampling"]),
        system=options.get("system", ""),
    )
    return Voice(team, engine, options["seed"])


def ready(speakers: Iterable[Policy], options: Mapping[str, Any]) -> Engine:
    """The engine of these options. The canary of each of `speakers` is heard at its first use."""
    engine = engine_of(options)
    for policy in speakers:
        _hear(policy, engine, options)
    return engine


def engine_of(options: Mapping[str, Any]) -> Models:
    """The engine of these options, with the model of `options` at home; one a process for each model and setting."""
    name = json.dumps([options["engine"], options["model"], options.get("device", "cpu")], sort_keys=True)
    if name not in _engines:
        _set_threads(options)
        module = leaf.find("inference/engines", options["engine"]["name"])
        device = options.get("device", "cpu")
        chosen = devices.settled(leaf.options("inference/engines", options["engine"]), device)
        _engines.clear()  # what another setting loaded makes room
        _heard.clear()
        _engines[name] = Models(
            lambda model: module.load(model, chosen, device), options["model"], getattr(chosen, "models", 1)
        )
    return _engines[name]


def _set_threads(options: Mapping[str, Any]) -> None:
    if options.get("threads") and options["engine"]["name"] != "scripted":
        import torch

        torch.set_num_threads(options["threads"])


def _hear(policy: Policy, engine: Models, options: Mapping[str, Any]) -> None:
    folder = Path(policy.folder) if policy.folder else None
    if not folder or policy.digest in _heard or not (folder / canary.FILE).is_file():
        return
    dtype = getattr(engine.engine(policy.model), "dtype", "float32")  # an engine without weights has none
    canary.check(folder, f"{policy.agent} ({policy.digest})", lambda pairs: engine.score(policy, pairs), dtype)
    _heard.add(policy.digest)
