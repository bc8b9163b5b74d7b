"""How a team plays in a run: who it is, what it plays, what is said of its answers. The first half of steps.py."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from apps import leaf, stages
from apps.inference import rationale
from apps.records import MeritError, Sampling
from apps.training import policy
from workflows import model, resolve
from workflows.chain import Standing
from workflows.config import PostTrain, Section
from workflows.plan import Node, Plan

if TYPE_CHECKING:
    from typing_extensions import Self

Shards = list[Node]


class Playing:
    """A configuration, the plan that it is turned into, and the steps from tasks to graded plays."""

    def __init__(self, config: PostTrain, plan: Plan, standing: Standing | None = None) -> None:
        self.config, self.plan = config, plan
        self.nodes: dict[str, Node] = {}  # of this run, which may share them with others in the plan
        self.start = {"start": standing.base} if standing and standing.base else {}  # input of all that opens the model
        self.reward_model: Shards = list(standing.reward_model) if standing else []  # of this run; see `trained`
        if (
            self.trains
            and "old" in leaf.find("training/objectives", config.objective["name"]).NEEDS
            and config.sampling.temperature == 0
        ):
            raise MeritError(
                f"objective.name={config.objective['name']} compares the trained with the sampling policy, so rollouts have to be "
                "sampled: sampling.temperature > 0 is expected; given 0, greedy"
            )
        self.model = model.identity(config.model) if config.engine["name"] != "scripted" else "scripted"
        self.share = resolve.sharing(config, self.agents)
        self.models = resolve.models(config, self.agents)
        if self.trains:
            resolve.check_training(config)
            resolve.token_wants(config)

    def onward(self, standing: Standing, config: PostTrain | None = None) -> Self:
        """The steps of a stage of the same run, from where the last one left things."""
        steps = type(self)(config if isinstance(config, PostTrain) else self.config, self.plan, standing)
        steps.nodes = self.nodes
        return steps

    @cached_property
    def topology(self) -> ModuleType:
        return resolve.topology(self.config)

    def add(self, stage: stages.Stage, *inputs: Any, **options: Any) -> Node:
        """A task of this run."""
        node = self.plan.add(stage, *inputs, **options)
        self.nodes[node.key] = node
        return node

    @property
    def trains(self) -> bool:
        """Scripted agents have nothing to train: their rounds end with the credit."""
        return self.config.engine["name"] != "scripted"

    @property
    def agents(self) -> list[str]:
        return list(self.topology.ROLES)

    @property
    def owners(self) -> list[str]:
        """The agents that have a policy of their own, which others may share."""
        return [agent for agent in self.agents if agent not in self.share]

    @cached_property
    def verifier(self) -> dict[str, Any]:
        section = resolve.verifier(self.config)
        if not resolve.asks_model(section):
            return section
        return resolve.judged_by_model(self.config, self.trains, bool(self.reward_model))

    @cached_property
    def prompts(self) -> dict[str, str]:
        return resolve.prompts(self.config, self.topology)

    def tasks(self, split: str) -> Node:
        data = model.fingerprint(self.config.tasks.get("path", ""), "tasks.path")
        return self.add(stages.TASKS, split=split, tasks=self.config.tasks, verifier=self._truth, data=data)

    @cached_property
    def _truth(self) -> Section:
        """The verifier of gold answers and figures: never a model, which the team may have learnt to please."""
        section = resolve.verifier(self.config)
        return resolve.own_verifier(self.config) if resolve.asks_model(section) else section

    def untrained(self) -> Node:
        """The team as it comes: every agent is its base model, or has an adapter of `team.adapters`."""
        if self.config.team.adapters:
            return self.adopted(self.config.team.adapters, "team.adapters")
        differing = {"share": self.share, "models": self.models}
        return self.add(stages.BASE, agents=self.agents, **{name: by for name, by in differing.items() if by})

    def adopted(self, adapters: str, setting: str) -> Node:
        """The team of the adapters in a folder, as a run leaves them; `setting` is named where there are none."""
        data, folder = model.fingerprint(adapters, setting), Path(adapters).expanduser().resolve()
        if not any((folder / agent / policy.ADAPTER).is_file() for agent in self.agents):
            raise MeritError(
                f"{setting}={adapters}: no adapter for any of {', '.join(self.agents)} in it; a folder an agent with an "
                f"{policy.ADAPTER} is expected, as a run leaves in runs/NAME/adapters"
            )
        own = {"models": self.models} if self.models else {}
        return self.add(stages.ADOPTED, adapters=str(folder), agents=self.agents, data=data, **own)

    def rollout(self, tasks: Node, team: Node | Sequence[Node]) -> tuple[Shards, Shards]:
        """A round's plays of training tasks, and their verdicts: in waves, each of the tasks that the ones before left wanting.

        By one team, or by one for each shard.
        """
        config, rollout = self.config, self.config.rollout
        plan, window = self._plays(rollout.plan), rollout.tasks * rollout.waves
        played: Shards = []
        judged: Shards = []
        for wave in range(rollout.waves):
            counted = {"rollout": played, "grade": judged}
            refill = self.add(stages.REFILL, counted, groups=rollout.tasks) if wave else None
            start = (self.plan.round - 1) * window + wave * rollout.tasks
            what, counts = f"train/{self.plan.round}", (start, rollout.tasks, rollout.shards)
            new = self.play(tasks, team, what, *counts, plan, config.sampling, window, refill)
            played, judged = played + new, judged + self.grade(tasks, new)
        return played, judged

    def retell(self, tasks: Node, played: Shards, pupil: Node) -> Shards:
        """A teacher's plays under the prompts and in the tokens of the team `pupil`."""
        speak = self._speak("retell", self.config.sampling)
        inputs = {"tasks": tasks, "policies": pupil, **self.start}
        return [self.add(stages.RETELL, {**inputs, "rollout": shard}, **speak) for shard in played]

    def rationalise(self, tasks: Node, played: Shards, judged: Shards) -> tuple[Shards, Shards]:
        """The same with second tries behind them, where `rollout.hint` asks for some: see apps/inference/rationale.py."""
        hint = self.config.rollout.hint
        if not hint:
            return played, judged
        resolve.check_hint(self.config)
        plan = {"name": "independent", "samples": 1, "called": rationale.CALLED}
        speak = self._speak(f"train/{self.plan.round}", self.config.sampling)
        told: Shards = []
        for shard, verdicts in zip(played, judged, strict=True):
            team = shard.inputs["policies"]
            inputs = {"tasks": tasks, "policies": team, "tried": shard, "grade": verdicts, **self.start}
            told += self.retell(tasks, [self.add(stages.ROLLOUT, inputs, plan=plan, hint=hint, **speak)], *team)
        return played + told, judged + self.grade(tasks, told)

    def grade(self, tasks: Node, played: Shards, verifier: Section | None = None) -> Shards:
        """Verdicts, by `verifier` or the configured one; a reward model's are worked out where a model is loaded."""
        verifier, stage, inputs = verifier or self.verifier, stages.GRADE, {}
        options: dict[str, Any] = {"verifier": verifier, "topology": self.config.topology}
        if resolve.asks_model(verifier):
            stage, inputs = stages.GRADE_BY_MODEL, {**self.start, **self.trained("verifier", "reward", verifier)}
            options |= {"engine": self.config.engine, "base_model": self.model, "seed": f"{self.config.seed}/grade"}
        return [self.add(stage, {"tasks": tasks, "rollout": shard, **inputs}, **options) for shard in played]

    def trained(self, name: str, folder: str, section: Section) -> dict[str, Shards]:
        """The input `name` of a stage that asks the models of `section`: this run's own reward model where none was given."""
        wants = hasattr(leaf.find(folder, section["name"]), "trained_by") and not section.get("adapter")
        return {name: self.reward_model} if wants and self.reward_model else {}

    def _measure(self, tasks: Node, played: Shards) -> Node:
        inputs = {"rollout": played, "grade": self.grade(tasks, played, self._truth)}
        return self.add(stages.MEASURE, inputs, topology=self.config.topology)

    def play(
        self,
        tasks: Node,
        team: Node | Sequence[Node],
        what: str,
        start: int,
        count: int,
        shards: int,
        plan: dict,
        sampling: Sampling,
        window: int = 0,
        refill: Node | None = None,
    ) -> Shards:
        """Plays of tasks start … start + count - 1 of a shuffle, in shards of whole groups, by one team or by one for each shard;
        with `refill` of as many as that says.
        """
        teams = [team] * shards if isinstance(team, Node) else team
        speak = self._speak(what, sampling) | ({"verifier": self.verifier} if plan["name"] == "best" else {})
        take = {"seed": f"{self.config.seed}/{what.split('/')[0]}", "window": window or count}
        edges = [start + count * i // shards for i in range(shards + 1)]
        parts = [{"start": low, "count": high - low} for low, high in zip(edges[:-1], edges[1:], strict=True)]
        if refill:
            parts = [{"start": start, "count": count, "part": [i, shards]} for i in range(shards)]
        inputs = {"tasks": tasks, **self.start, **({"refill": refill} if refill else {})}
        return [
            self.add(stages.ROLLOUT, {**inputs, "policies": playing}, plan=plan, take={**take, **part}, **speak)
            for part, playing in zip(parts, teams, strict=True)
            if part["count"]
        ]

    def _speak(self, what: str, sampling: Sampling) -> dict[str, Any]:
        config = self.config
        return {
            "topology": config.topology,
            "engine": config.engine,
            "base_model": self.model,
            "prompts": self.prompts,
            "system": config.team.system,
            "sampling": dataclasses.asdict(sampling),
            "seed": f"{config.seed}/{what}",
        }

    def _plays(self, plan: str) -> dict[str, Any]:
        """How each task is played where credit is worked out."""
        if plan in ("tree", "best"):
            resolve.check_judge(self.config)
            return {"name": plan, "branching": resolve.branching(self.config, self.topology)}
        return {"name": plan, "samples": self.config.rollout.samples}
