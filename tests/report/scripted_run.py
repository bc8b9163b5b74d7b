"""A small run without a model: the real stages with the scripted engine, training replaced by numbers written by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from apps import artifacts, records, stages
from apps.records import Artifact

AGENTS = ("solver", "critic", "reviser", "verifier")
DUTIES = {"solver": "solve", "critic": "check", "reviser": "revise", "verifier": "report"}
WORSE = {"name": "scripted", "solve": 0.6, "wave_through": 0.9, "cry_wolf": 0.1, "revise": 0.6, "report": 0.2}
BETTER = {"name": "scripted", "solve": 0.2, "wave_through": 0.2, "cry_wolf": 0.05, "revise": 0.2, "report": 0.02}
COMMON = {
    "tasks": {"name": "arithmetic", "levels": [2], "train": 12, "validation": 12, "test": 24},
    "verifier": {"name": "exact_number"},
    "topology": {"name": "solve_critique_revise"},
    "prompts": {
        "solver": "Solve: {question}",
        "critic": "Check: {question} Solution: {draft}",
        "reviser": "Revise: {question} Solution: {draft} Critique: {review}",
        "verifier": "Report: {draft}",
    },
    "model": "",
    "seed": "0",
    "credit": {"name": "shapley", "repeats": 2},
    "agents": list(AGENTS),
}


class Run:
    """Makes artifacts in a store of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def make(self, stage: stages.Stage, options: dict[str, Any] | None = None, **inputs: list[Artifact]) -> Artifact:
        options = {**COMMON, **(options or {})}
        key = records.digest([stage.name, options, {name: [a.key for a in found] for name, found in inputs.items()}])
        return stages.execute(
            stage=stage.name, key=key, module=stage.module, root=str(self.root), options=options, machine={},
            given=inputs, pool="",
        )  # fmt: skip

    def play(self, tasks: Artifact, team: Artifact, engine: dict, count: int, samples: int, temperature: float = 1.0):
        """A shard: rollout and grade."""
        plan = {"name": "independent", "samples": samples}
        sampling = {"temperature": temperature, "max_new_tokens": 32}
        take = {"seed": "0", "start": 0, "count": count}
        rollout = self.make(
            stages.ROLLOUT,
            {"engine": engine, "plan": plan, "sampling": sampling, "take": take},
            tasks=[tasks],
            policies=[team],
        )
        return rollout, self.make(stages.GRADE, tasks=[tasks], rollout=[rollout])

    def credit(self, tasks: Artifact, team: Artifact, engine: dict, rollout: Artifact, grade: Artifact):
        """replay and assign of a shard."""
        shard = {"tasks": [tasks], "rollout": [rollout], "grade": [grade]}
        sampling = {"temperature": 1.0, "max_new_tokens": 32}
        replay = self.make(stages.REPLAY, {"engine": engine, "sampling": sampling}, policies=[team], **shard)
        return replay, self.make(stages.ASSIGN, replay=[replay], **shard)

    def train(self, agent: str, number: int, batch: Artifact) -> Artifact:
        """A training by hand: no model, but what `train` says of one."""
        key = records.digest(["train", agent, number, batch.key])
        with artifacts.new(self.root, "train", key, {"options": {}, "inputs": {"batch": [batch.key]}}) as out:
            steps = [
                {
                    "step": s,
                    "lr": 1e-3,
                    "gradient_norm": 0.5,
                    "loss": 0.1 / s,
                    "kl": 0.02 * number,
                    "clip_fraction": 0.05,
                    "ratio_mean": 1.001,
                }
                for s in range(1, 5)
            ]
            (out / "metrics.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
            facts = {
                "agent": agent,
                "digest": f"{agent}{number}",
                "steps": 4,
                "rows": 8,
                "tokens": 100,
                "loss": 0.05,
                "last": steps[-1],
            }
            (out / "facts.json").write_text(json.dumps(facts))
        return Artifact("train", key, str(artifacts.locate(self.root, "train", key)))

    def round(self, tasks: Artifact, team: Artifact, engine: dict, number: int) -> dict[str, list[Artifact]]:
        """One training round of two shards."""
        shards = [self.play(tasks, team, {**engine, "revise": 0.1 * number + 0.1 * i}, 4, 2) for i in range(2)]
        credited = [self.credit(tasks, team, engine, *shard) for shard in shards]
        made = {"rollout": [s[0] for s in shards], "grade": [s[1] for s in shards], "assign": [c[1] for c in credited]}
        chosen = {"advantage": {"name": "grpo"}, "objective": {"name": "grpo"}}
        batch = self.make(stages.BATCH, chosen, **made)
        trained = [self.train(agent, number, batch) for agent in AGENTS]
        return {**made, "replay": [c[0] for c in credited], "batch": [batch], "train": trained}


def inputs(root: Path) -> dict[str, list[Path]]:
    """What the stage `report` is given after two rounds: from a worse team to a better one."""
    run = Run(root)
    test, train = (run.make(stages.TASKS, {"split": split}) for split in ("test", "train"))
    team = run.make(stages.BASE)
    found: dict[str, list[Artifact]] = {"tasks": [test]}
    for when, engine in (("before", WORSE), ("after", BETTER)):
        for mode, samples in (("greedy", 1), ("sampled", 2)):
            shard = run.play(test, team, engine, 24, samples, temperature=float(mode == "sampled"))
            found[f"{when}_{mode}"] = [run.make(stages.MEASURE, rollout=[shard[0]], grade=[shard[1]])]
        shown = run.play(test, team, engine, 6, 1)
        found[f"show_{when}"] = [*shown, run.credit(test, team, engine, *shown)[1]]
    found["validation"] = [found["before_sampled"][0], found["after_sampled"][0], found["before_greedy"][0]]
    found["promote"] = [promotion(run, test, team, scores, found) for scores in found["validation"][1:]]
    for number in (1, 2):
        for name, made in run.round(train, team, WORSE, number).items():
            found[name] = found.get(name, []) + made
    return {name: [Path(artifact.path) for artifact in made] for name, made in found.items()}


def promotion(run: Run, tasks: Artifact, team: Artifact, candidate: Artifact, found: dict) -> Artifact:
    chosen = {"promotion": {"rule": "better", "alpha": 0.05}, "agents": list(AGENTS)}
    scores = {"scores": found["validation"][:1], "candidate_scores": [candidate]}
    return run.make(stages.PROMOTE, chosen, policies=[team], candidate=[team], **scores)


OPTIONS = {
    "config": {
        "name": "scripted <team>", "seed": 0, "rounds": 2, "model": "none", "tasks": {"name": "arithmetic"},
        "topology": {"name": "solve_critique_revise"}, "credit": {"name": "shapley", "repeats": 2},
        "training": {"objective": {"name": "grpo"}, "advantage": {"name": "at_grpo"}},
    },
    "agents": list(AGENTS), "duties": DUTIES, "command": "python workflows/run.py --site local --seed 0",
}  # fmt: skip
