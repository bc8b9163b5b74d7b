"""The figures of a run for programs: `summary.json`. Comparisons are paired, on the same held-out tasks.

Schema, format 1 (shares in 0..1; a figure over nothing is null; `low`, `high`: 95 % interval over tasks; n: tasks of an
accuracy, a difference or a credit, else the plays or the role's turns that a share is of):

    name
    accuracy      greedy, sampled: before, after {value, low, high, n}, difference, low, high, p (sign-flip test on the
                  tasks' means), n, mcnemar {gained, lost, p} (of each task's first sample), sampled also: samples
    solver_alone  greedy, sampled: before, after: the team's first answer
    team_over_solver  greedy, sampled: of the trained team: difference, low, high, p
    roles         role: figure: before, after {value, low, high, n}
    metrics       greedy, sampled: before, after: convergence, error_correction, error_introduction,
                  collaboration_efficiency, unparsed, pass_at {k}, majority_at {k}: {value, low, high, n} each; turns,
                  tokens: plain means
    credit        role: before, after {mean, low, high, n}, rounds [the same of each training round's plays]
    validation    of the untrained team, then each round's candidate, or the team that the round left where adapters
                  were tried one by one: round, value, low, high, n
    stages        of a run that chains them, a row each: stage, value, low, high, n (validation accuracy of the team that it
                  left), change {difference, low, high, p} from the team that it began with, paired by task; else empty
    promotions    a decision each: round, agents (whose adapters were tried), promoted, difference, p, reason
    training      a round each: round, reward (mean score of its plays), agents (who was trained), teams (how many played: more
                  than one where policies of earlier rounds took part), off_policy (those of them that were trained from other
                  weights than spoke), refused (of rounds that overlap: whose new weights of the round before were in
                  training or on trial while this one was played, and were then refused: it stays the standing policy's own)
    seconds       stage: summed over the artifacts that went into the report (work, not waiting)
    tokens        sampled, trained
    health        role: a row a round, see health.py;   alarms: sentences, empty when all is well
    gaming        length, copying, agreement: whether credit was had without merit in the rounds' plays, see
                  apps/fidelity/gaming.py; null where there were none
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from apps import artifacts
from apps.evaluation import app as evaluation
from apps.evaluation import statistics
from apps.fidelity import gaming
from apps.report import health
from apps.report.rounds import Inputs, Played, digests, facts, off_policy, played, rounds, teams

FORMAT = 1
SHOWN = ("show_before", "show_after")
METRICS = (
    "convergence",
    "error_correction",
    "error_introduction",
    "collaboration_efficiency",
    "unparsed",
    "pass_at",
    "majority_at",
    "turns",
    "tokens",
)


def summarise(inputs: Inputs, options: Mapping[str, Any]) -> dict[str, Any]:
    """The whole summary as plain JSON."""
    scores = {
        f"{w}_{m}": evaluation.read(inputs[f"{w}_{m}"][0]) for w in ("before", "after") for m in ("greedy", "sampled")
    }
    modes = {m: (scores[f"before_{m}"], scores[f"after_{m}"]) for m in ("greedy", "sampled")}
    trained, duties = rounds(inputs), options["duties"]
    plays = [played(r.rollout, r.grade, r.assign) for r in trained]
    shown = [played(*([folder] for folder in inputs[name])) if inputs.get(name) else Played() for name in SHOWN]
    rows = health.of_rounds(trained, plays, duties)
    validation = [{"round": i, **evaluation.read(f)["accuracy"]} for i, f in enumerate(inputs.get("validation", ()))]
    promotions = decisions(inputs.get("promote", ()), [r.train for r in trained])
    overlap, weights = options["config"].get("rollout", {}).get("overlap", 0), digests(every(inputs))
    reward = [
        {
            "round": r.number,
            "reward": _mean_score(p),
            "agents": list(r.train),
            "teams": teams(r),
            "off_policy": off_policy(r, weights),
            "refused": refused(promotions, r.number - 1) if overlap else [],
        }
        for r, p in zip(trained, plays, strict=True)
    ]
    found = {
        "format": FORMAT,
        "name": options["config"].get("name", ""),
        "accuracy": {mode: compare(*pair, mode) for mode, pair in modes.items()},
        "solver_alone": {m: {"before": b["single"], "after": a["single"]} for m, (b, a) in modes.items()},
        "team_over_solver": {m: over_solver(after) for m, (_, after) in modes.items()},
        "roles": by_role(*modes["sampled"]),
        "metrics": {m: {"before": _metrics(b), "after": _metrics(a)} for m, (b, a) in modes.items()},
        "credit": credit_by_role(options["agents"], *shown, plays),
        "validation": validation,
        "stages": by_stage(inputs, options),
        "promotions": promotions,
        "training": reward,
        "seconds": seconds_by_stage(every(inputs)),
        "tokens": tokens(every(inputs)),
        "health": rows,
        "gaming": gamed(plays),
        "alarms": health.alarms(rows, [row["reward"] for row in reward], [row["value"] for row in validation]),
    }
    return plain(found)


def by_stage(inputs: Inputs, options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The team that each stage of a chain left, against the one that it began with."""
    scores = [evaluation.read(folder) for folder in (*inputs.get("validation", ())[:1], *inputs.get("stages", ()))]
    rows = []
    for name, before, after in zip(options.get("stages", ()), scores, scores[1:], strict=False):
        test = statistics.paired(evaluation.matrix(before), evaluation.matrix(after))
        change = {"difference": test.difference, "low": test.low, "high": test.high, "p": test.p}
        rows.append({"stage": name, **after["accuracy"], "change": change})
    return rows


def gamed(plays: Sequence[Played]) -> dict[str, Any] | None:
    """The signs of gamed credit over all rounds."""
    graded, credit = ([one for p in plays for one in getattr(p, name)] for name in ("graded", "credit"))
    return gaming.report(graded, credit) if credit else None


def decisions(promote: Sequence[Path], trained: Sequence[Collection[str]]) -> list[dict[str, Any]]:
    """Each decision with its round: a new one begins where somebody is tried again, or the last one's trained are all tried.

    `rounds` says who was trained in which; a decision names some of those.
    """
    told, found, number, left = [facts(folder) for folder in promote], [], 0, set()
    for fact in told:
        if not set(fact["agents"]) <= left:
            number += 1
            left = set(trained[number - 1]) if number <= len(trained) else set(fact["agents"])
        left -= set(fact["agents"])
        found.append({"round": number, **fact})
    return found


def refused(promotions: Sequence[Mapping[str, Any]], number: int) -> list[str]:
    """Whose new weights a round did not let in."""
    return [agent for row in promotions if row["round"] == number and not row["promoted"] for agent in row["agents"]]


def compare(before: Mapping[str, Any], after: Mapping[str, Any], mode: str) -> dict[str, Any]:
    """The accuracy of two teams on the same tasks."""
    old, new = evaluation.matrix(before), evaluation.matrix(after)
    test, flips = statistics.paired(old, new), statistics.mcnemar(old[:, 0], new[:, 0])
    compared = {
        "before": before["accuracy"],
        "after": after["accuracy"],
        "difference": test.difference,
        "low": test.low,
        "high": test.high,
        "p": test.p,
        "n": len(old),
        "mcnemar": {"gained": flips.gained, "lost": flips.lost, "p": flips.p},
    }
    return {**compared, "samples": old.shape[1]} if mode == "sampled" else compared


def over_solver(scores: Mapping[str, Any]) -> dict[str, float]:
    """How far a team stands above its own solver alone, paired by task."""
    test = statistics.paired(evaluation.matrix(scores, "drafts"), evaluation.matrix(scores))
    return {"difference": test.difference, "low": test.low, "high": test.high, "p": test.p}


def by_role(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Each role's shares before and after."""
    shares = [{role: _shares(f) for role, f in scores["roles"].items()} for scores in (before, after)]
    return {
        role: {name: {"before": shares[0][role][name], "after": shares[1][role][name]} for name in named}
        for role, named in shares[1].items()
    }


def _shares(figures: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of a role that are shares with an interval, without the counts behind them."""
    return {name: value for name, value in figures.items() if isinstance(value, Mapping)}


def credit_by_role(roles: Sequence[str], before: Played, after: Played, plays: Sequence[Played]) -> dict[str, Any]:
    """The mean value of each role, before, after, and in each round's plays."""
    tables = [values_by_agent(p) for p in (before, after, *plays)]
    rows = {role: [mean_credit(table.get(role, {})) for table in tables] for role in roles}
    return {role: {"before": b, "after": a, "rounds": rest} for role, (b, a, *rest) in rows.items()}


def values_by_agent(plays: Played) -> dict[str, dict[str, list[float]]]:
    """agent → task → its value in each trace. A method that gives turns alone: the sum over the agent's turns."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for graded, credit in zip(plays.graded, plays.credit, strict=bool(plays.credit)):
        agents = dict(credit.agents)
        if not agents:
            for turn, value in zip(graded.trace.turns, credit.values, strict=True):
                agents[turn.agent] = agents.get(turn.agent, 0.0) + value
        for agent, value in agents.items():
            found[agent][graded.trace.task].append(value)
    return found


def mean_credit(by_task: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """The mean over tasks, with a bootstrap over tasks; n counts tasks."""
    if not by_task:
        return {"mean": None, "low": None, "high": None, "n": 0}
    means = np.array([np.mean(by_task[task]) for task in sorted(by_task)])
    interval = statistics.bootstrap(means)
    return {"mean": float(means.mean()), "low": interval.low, "high": interval.high, "n": len(means)}


def every(inputs: Inputs) -> list[Path]:
    """Every folder that went in, once."""
    return list(dict.fromkeys(folder for folders in inputs.values() for folder in folders))


def seconds_by_stage(folders: Iterable[Path]) -> dict[str, float]:
    total: dict[str, float] = defaultdict(float)
    for folder in folders:
        made = artifacts.manifest(folder)
        total[made["stage"]] += made["seconds"]
    return {stage: round(seconds, 3) for stage, seconds in total.items()}


def tokens(folders: Iterable[Path]) -> dict[str, int]:
    """Tokens that were generated, and tokens that were trained on (prompts included, each epoch counted)."""
    stages = [(artifacts.manifest(folder)["stage"], folder) for folder in folders]
    counts = {
        stage: [facts(f).get("tokens", 0) for s, f in stages if s == stage] for stage in ("rollout", "replay", "train")
    }
    return {"sampled": int(sum(counts["rollout"] + counts["replay"])), "trained": int(sum(counts["train"]))}


def plain(value: Any) -> Any:
    """As JSON: numbers plain, what is not finite null."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


def _metrics(scores: Mapping[str, Any]) -> dict[str, Any]:
    return {name: scores[name] for name in METRICS}


def _mean_score(plays: Played) -> float:
    return float(np.mean([g.verdict.score for g in plays.graded])) if plays.graded else float("nan")
