"""The stages of the fidelity benchmark: how far each credit method can be trusted, where the truth is known.

`contest` measures estimators on games with known values; `planted` plays a team with known faults and lets every method
judge it; `compared` does the same for a model's team, with values at high repeat counts as the truth. What was found is
put together by the stage `fidelity` (report.py), so that another page measures nothing anew.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from apps import leaf, policies
from apps.credit import app as credit_app
from apps.credit import results
from apps.fidelity import agreement, faults, gaming, measures, rows, truth
from apps.inference.driver import Start, Team, Voice, perform
from apps.inference.engines import scripted
from apps.records import Credit, Finding, Graded, Group, MeritError, Outcome, Policy, Question, Replay, Sampling
from apps.reward import app as reward_app
from apps.tasks import app as tasks_app

CONTEST, COMPARED = "contest.json", "compared.json"
ADAPTER = "adapter_model.safetensors"
TRUTH = truth.__name__
UNDONE = 16  # replays that say whether the team would have been right without what struck
UNDONE_FIRST = 2_000_000  # number of the first of them: their random numbers are nobody else's


def contest(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """Writes `contest.json`: the error of each estimator on each game with a known answer."""
    from apps.fidelity import contest as games

    found = games.run(games.Options(**options["games"]))
    (out / CONTEST).write_text(json.dumps(found) + "\n")
    return {"rows": len(found["rows"])}


def planted(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """Plays one case with one seed, lets every method judge it, and writes a row a trace.

    With `faulty_base` the base model, which stands in for an agent in a method's replays, has the team's faults; what a
    fault did is told by a sound one all the same.
    """
    started = time.perf_counter()
    case, usual = faults.Case(**options["case"]), scripted.Rates(**options["usual"])
    engine = scripted.Scripted(case.engine(usual, options["faulty_base"]))
    luck = f"faults/{case.name}/{options['seed']}"
    speaking = _planted_team(case, engine, luck)
    tasks = tasks_app.take(tasks_app.read(inputs["tasks"][0]), luck, 0, case.tasks)
    traces = perform([Start(task, str(k)) for task in tasks for k in range(case.samples)], speaking)
    groups = _groups(tasks, traces, case, options["verifier"])
    struck = {g.trace.id: _struck(g, engine) for group in groups for g in group.graded}
    worth, judged, seconds = _driven(groups, speaking, options)
    sound = _planted_team(case, scripted.Scripted(case.engine(usual)), luck)
    undone = _undone(groups, struck, sound, options["verifier"])
    habits = {fault.role for fault in case.faults if fault.rate == 1}
    found = []
    for graded, truth_of, says in zip((g for group in groups for g in group.graded), worth, judged, strict=True):
        speakers, hit = tuple(turn.agent for turn in graded.trace.turns), struck[graded.trace.id]
        found.append(
            measures.Played(
                case=case.name,
                unit=f"{case.name}/{options['seed']}/{graded.trace.task}",
                speakers=speakers,
                outcome=graded.verdict.score,
                truth=truth_of.values,
                methods=says,
                struck=hit,
                undone=undone.get(graded.trace.id),
                habit=any(speakers[turn] in habits for turn in hit),
                planted=bool(case.faults),
            )
        )
    rows.write(out, found)
    return {
        "traces": len(found),
        "struck": sum(bool(row.struck) for row in found),
        "methods": seconds,
        "turns": speaking.turns,
        "tokens": speaking.tokens,
        "seconds": time.perf_counter() - started,
    }


def adopted(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """A team of the adapters in a folder, as a run leaves them: a folder an agent; who has none is the base model.

    Option `models`, by agent: the digests of base models that are not the run's.
    """
    import hashlib

    sources = {agent: Path(options["adapters"]) / agent for agent in options["agents"]}
    sources = {agent: folder for agent, folder in sources.items() if (folder / ADAPTER).is_file()}
    digests = {
        agent: hashlib.sha256((folder / ADAPTER).read_bytes()).hexdigest()[:16] for agent, folder in sources.items()
    }
    digests = {agent: digests.get(agent, "base") for agent in options["agents"]}
    policies.write(out, digests, sources, options.get("models", {}))
    return {"trained": list(sources)}


def compared(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """Writes `compared.json`: how methods that share one record of replays agree with two truths and with one another.

    The truths are worth by prefix (truth.py) and Shapley values at a high repeat count, both from the record `truth`, whose
    random numbers are others. `removal` and `replacement` name the methods whose values answer the question whether
    taking an agent away and speaking its turn anew tell the same story; `stand_ins` those that differ in the protocol.
    """
    groups = credit_app.read_groups(inputs, options)
    recorded, trusted = (results.read_replays(inputs[name][0]) for name in ("replay", "truth"))
    facts = json.loads((inputs["replay"][0] / "facts.json").read_text())

    def judged(section: Mapping[str, Any], findings: Mapping[str, results.Findings]) -> list[measures.Judged]:
        return [one for group in groups for one in judged_by(section, group, findings.get(group.task.id, {}))]

    says = {name: judged(section, recorded) for name, section in options["methods"].items()}
    truths = {name: judged(section, trusted) for name, section in options["truths"].items()}
    found = agreement.with_truths(says, truths, [g.task.id for g in groups for _ in g.graded])
    per_token = facts["seconds"] / max(1, facts["tokens"])
    for row in found["methods"].values():
        row["seconds"] = row["tokens"] * per_token
    found["stand_ins"] = agreement.matrix({name: says[name] for name in options["stand_ins"] if name in says})
    found["removal_and_replacement"] = agreement.matrix(
        {name: says[name] for name in options["opposed"] if name in says}
    )
    graded = [g for group in groups for g in group.graded]
    credit = {name: credited(options["methods"][name], groups, recorded) for name in options["watched"]}
    found["gaming"] = {name: gaming.report(graded, given) for name, given in credit.items()}
    found |= {"tasks": len(groups), "traces": len(graded), "turns": sum(len(g.trace.turns) for g in graded)}
    found |= {"accuracy": float(np.mean([g.verdict.score for g in graded])), "seconds": facts["seconds"]}
    (out / COMPARED).write_text(json.dumps(found) + "\n")
    return {"traces": len(graded), "methods": len(says)}


def _planted_team(case: faults.Case, engine: scripted.Scripted, seed: str) -> Voice:
    topology = leaf.find("topologies", case.topology["name"])
    policies = {role: Policy(role, "planted") for role in topology.ROLES}  # not "base", which has no faults
    options = {key: value for key, value in case.topology.items() if key != "name"}
    return Voice(Team(case.topology["name"], options, topology.PROMPTS, policies, Sampling()), engine, seed)


def _groups(tasks: Sequence, traces: Sequence, case: faults.Case, verifier: Mapping[str, Any]) -> list[Group]:
    team = leaf.find("topologies", case.topology["name"])
    verify = _verifying(verifier)

    def judge(task, trace) -> Graded:
        return reward_app.judge(task, trace, team.DUTIES, lambda *text: verify([text])[0])

    return [
        Group(task, tuple(judge(task, t) for t in traces if t.task == task.id), team.ROLES, team.DUTIES)
        for task in tasks
    ]


def _struck(graded: Graded, engine: scripted.Scripted) -> dict[int, str]:
    turns = enumerate(graded.trace.turns)
    return {i: engine.struck[turn.seed] for i, turn in turns if turn.seed in engine.struck}


def _verifying(verifier: Mapping[str, Any]):
    return reward_app.verifying({}, {"verifier": dict(verifier)})


def _driven(
    groups: Sequence[Group], speaking: Voice, options: Mapping[str, Any]
) -> tuple[list[Credit], list[dict[str, measures.Judged]], dict[str, float]]:
    """(truth, method -> what it says) of each trace, and the seconds that each method took."""
    found: list[dict[Question, Finding]] = [{} for _ in groups]
    verify, seconds = _verifying(options["verifier"]), {}

    def find_out(asked: Sequence[tuple[int, Question]]) -> None:
        if strange := [q for _, q in asked if not isinstance(q, Replay)]:
            raise MeritError(
                f"asks a {type(strange[0]).__name__}; scripted agents have no model to ask: leave it out of methods"
            )
        came: list[Outcome] = credit_app.outcomes_of([(groups[i], q) for i, q in asked], speaking, verify)
        for (i, question), outcome in zip(asked, came, strict=True):
            found[i][question] = outcome

    yardstick = {"name": TRUTH, "repeats": options["truth"]}
    for name, section in {**options["methods"], TRUTH: yardstick}.items():
        started = time.perf_counter()
        try:
            credit_app.investigate([credit_app.started(section, group) for group in groups], found, find_out)
        except MeritError as error:
            raise MeritError(f"methods.{name}, case {options['case']['name']}: {error}") from error
        seconds[name] = time.perf_counter() - started
    by_task = {group.task.id: findings for group, findings in zip(groups, found, strict=True)}
    says = {
        name: [one for group in groups for one in judged_by(section, group, by_task[group.task.id])]
        for name, section in options["methods"].items()
    }
    worth = credited(yardstick, groups, by_task)
    return worth, [{name: judged[i] for name, judged in says.items()} for i in range(len(worth))], seconds


def credited(
    section: Mapping[str, Any], groups: Sequence[Group], recorded: Mapping[str, results.Findings]
) -> list[Credit]:
    """A method's credit of every trace."""
    given = [credit_app.given(credit_app.started(section, group), recorded.get(group.task.id, {})) for group in groups]
    return [one for of_group in given for one in of_group]


def judged_by(section: Mapping[str, Any], group: Group, findings: Mapping[Question, Finding]) -> list[measures.Judged]:
    """What a method says of each trace of a group, from what was found out; its cost is shared by the traces."""
    used: list[Finding] = []
    credit = credit_app.given(credit_app.started(section, group), findings, used)
    traces = len(group.graded)
    replays = sum(isinstance(finding, Outcome) for finding in used) / traces
    tokens = sum(getattr(f, "sampled_tokens", 0) + getattr(f, "read_tokens", 0) for f in used) / traces
    return [measures.Judged(c.values, c.agents, replays, tokens) for c in credit]


def _undone(
    groups: Sequence[Group], struck: Mapping[str, Mapping[int, str]], speaking: Voice, verifier: Mapping[str, Any]
) -> dict[str, float]:
    """trace -> mean score with the base model in the guilty agents' place from the first struck turn on."""
    asked = [
        (group, i, graded.trace.id)
        for group in groups
        for i, graded in enumerate(group.graded)
        if struck[graded.trace.id]
    ]
    wanted = []
    for group, i, name in asked:
        turns = group.graded[i].trace.turns
        absent = tuple(dict.fromkeys((turns[turn].agent, "base") for turn in struck[name]))
        wanted += [(group, Replay(i, absent, UNDONE_FIRST + r, min(struck[name]), "rest")) for r in range(UNDONE)]
    scores = [o.score for o in credit_app.outcomes_of(wanted, speaking, _verifying(verifier))]
    means = np.array(scores).reshape(-1, UNDONE).mean(axis=1)
    return {name: float(mean) for (_, _, name), mean in zip(asked, means, strict=True)}
