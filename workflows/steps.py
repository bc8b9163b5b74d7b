"""The steps that workflows are made of: each adds tasks to the plan, with just the options that decide their result."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from apps import leaf, stages
from apps.inference import rehearsal
from apps.inference.driver import seed_of
from apps.records import MeritError, Sampling
from apps.training import policy
from workflows import model
from workflows.config import PostTrain, Section
from workflows.plan import Node, Plan

Shards = list[Node]
BRANCHES = {"solve": 3, "check": 4, "revise": 3, "report": 1}  # of a tree, by duty


class Steps:
    """The steps of one run: a configuration and the plan that it is turned into."""

    def __init__(self, config: PostTrain, plan: Plan) -> None:
        self.config, self.plan = config, plan
        self.nodes: dict[str, Node] = {}  # of this run, which may share them with others in the plan
        if (
            self.trains
            and "old" in leaf.find("training/objectives", config.objective["name"]).NEEDS
            and not config.sampling.whole
        ):
            raise MeritError(
                f"objective.name={config.objective['name']} compares the trained with the sampling policy, so rollouts have to draw "
                f"from the whole distribution: sampling.temperature > 0, top_p = 1, top_k = 0; given {config.sampling}"
            )
        self.model = model.identity(config.model) if config.engine["name"] != "scripted" else "scripted"
        if self.trains and config.training.lora is not None:
            policy.check_targets(config.training.lora.targets, model.layers(config.model))

    @cached_property
    def topology(self) -> ModuleType:
        found = leaf.find("topologies", self.config.topology["name"])
        for used in getattr(found, "USES", ()):
            leaf.find(*used)  # a typo in it is answered with the nearest name
        return found

    def _add(self, stage: stages.Stage, *inputs: Any, **options: Any) -> Node:
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

    @cached_property
    def verifier(self) -> dict[str, Any]:
        """The verifier's section: the configured one, or the task family's own."""
        if self.config.verifier["name"]:
            return self.config.verifier
        family = leaf.find("tasks", self.config.tasks["name"])
        options = leaf.options("tasks", self.config.tasks)
        return {"name": getattr(options, "verifier", "") or family.VERIFIER}

    @cached_property
    def prompts(self) -> dict[str, str]:
        """Every role's template; a role without one is an error, and so is a prompt for no role."""
        given = {role: _text(role, template) for role, template in self.config.team.prompts.items()}
        for role in given:
            if role not in self.agents:
                raise MeritError(
                    leaf.unknown(f"team.prompts: role of {self.config.topology['name']}", role, self.agents)
                )
        prompts = {**getattr(self.topology, "PROMPTS", {}), **given}
        if missing := [role for role in self.agents if not prompts.get(role)]:
            raise MeritError(
                f"the role {missing[0]!r} has no prompt; set team.prompts.{missing[0]} to a template or @FILE"
            )
        options = {key: value for key, value in self.config.topology.items() if key != "name"}
        rehearsal.check(self.config.topology["name"], options, prompts)
        return {role: prompts[role] for role in self.agents}

    def tasks(self, split: str) -> Node:
        data = model.fingerprint(self.config.tasks.get("path", ""), "tasks.path")
        return self._add(stages.TASKS, split=split, tasks=self.config.tasks, verifier=self.verifier, data=data)

    def untrained(self) -> Node:
        """The team as it comes: every agent is the base model."""
        return self._add(stages.BASE, agents=self.agents)

    def rollout(self, tasks: Node, team: Node, **what: Any) -> Shards:
        """A round's plays of training tasks."""
        config, rollout = self.config, self.config.rollout
        plan, start = self._plays(rollout.plan), (self.plan.round - 1) * rollout.tasks
        return self.play(
            tasks, team, f"train/{self.plan.round}", start, rollout.tasks, rollout.shards, plan, config.sampling
        )

    def grade(self, tasks: Node, played: Shards) -> Shards:
        return [
            self._add(
                stages.GRADE, {"tasks": tasks, "rollout": shard}, verifier=self.verifier, topology=self.config.topology
            )
            for shard in played
        ]

    def replay(
        self,
        tasks: Node,
        team: Node,
        played: Shards,
        judged: Shards,
        credit: Section | None = None,
        **asked: Node,
    ) -> list[Node | None]:
        """What the credit method, or that of `credit`, asks for; None where it asks for nothing.

        `asked` is what is asked besides the team: a `reward_model` that was trained in this very run.
        """
        credit = credit or self._credit()
        if not leaf.find("credit", credit["name"]).asks(leaf.options("credit", credit)):
            return [None] * len(played)
        speak = self._speak(f"replay/{self.plan.round}", self.config.sampling)
        return [
            self._add(
                stages.REPLAY,
                {"tasks": tasks, "policies": team, "rollout": shard, "grade": verdicts, **asked},
                credit=credit,
                verifier=self.verifier,
                **speak,
            )
            for shard, verdicts in zip(played, judged, strict=True)
        ]

    def assign(self, tasks: Node, played: Shards, judged: Shards, replays: Sequence[Node | None]) -> Shards:
        options: dict[str, Any] = {"credit": self._credit(), "topology": self.config.topology}
        measured = self._calibrate(tasks, played, judged, replays, options)
        if self.config.shuffle_credit and self.plan.round:
            options["shuffle"] = f"{self.config.seed}/{self.plan.round}"
        return [
            self._add(
                stages.ASSIGN,
                {
                    "tasks": tasks,
                    "rollout": shard,
                    "grade": verdicts,
                    **({"replay": replay} if replay else {}),
                    **measured,
                },
                **options,
            )
            for shard, verdicts, replay in zip(played, judged, replays, strict=True)
        ]

    def _calibrate(
        self, tasks: Node, played: Shards, judged: Shards, replays: Sequence[Node | None], options: dict[str, Any]
    ) -> dict[str, Node]:
        """The input `calibration` of `assign`, from all shards together; none where the method is not calibrated so."""
        credit = self.config.credit
        if credit.get("calibration") or not hasattr(leaf.find("credit", credit["name"]), "calibrate"):
            return {}
        inputs = {"tasks": tasks, "rollout": played, "grade": judged, "replay": replays}
        return {"calibration": self._add(stages.CALIBRATE, inputs, **options)}

    def train(self, team: Node, played: Shards, judged: Shards, credit: Shards) -> list[Node]:
        """A new adapter for every agent, each on its own turns."""
        config = self.config
        rows = self._add(
            stages.BATCH,
            {"rollout": played, "grade": judged, "assign": credit},
            agents=self.agents,
            advantage=config.advantage,
            objective=config.objective,
        )
        return [
            self._add(
                stages.TRAIN,
                {"batch": rows, "policies": team},
                agent=agent,
                base_model=self.model,
                objective=config.objective,
                training=config.training.model_dump(mode="json"),
                seed=seed_of(config.seed, "training", self.plan.round, agent) >> 1,
            )
            for agent in self.agents
        ]

    def gather(self, team: Node, adapters: Sequence[Node]) -> Node:
        return self._add(stages.GATHER, {"policies": team, "train": adapters})

    def trials(self, adapters: Sequence[Node]) -> list[list[Node]]:
        """What is tried together: all new adapters, or one after another in the topology's order."""
        return [list(adapters)] if self.config.promotion.unit == "team" else [[adapter] for adapter in adapters]

    def promote(self, team: Node, scores: Node, candidate: Node, candidate_scores: Node) -> Node:
        """Who plays on. Its artifact holds the team and that team's scores."""
        inputs = {"policies": team, "scores": scores, "candidate": candidate, "candidate_scores": candidate_scores}
        tried = [adapter.options["agent"] for adapter in candidate.inputs["train"]]
        rule = self.config.promotion.model_dump(exclude={"unit"})
        return self._add(stages.PROMOTE, inputs, promotion=rule, agents=tried)

    def validate(self, tasks: Node, team: Node) -> Node:
        """Figures on the validation tasks, sampled: the same tasks and random numbers in every round."""
        evaluation = self.config.evaluation
        plan = {"name": "independent", "samples": evaluation.validation_samples}
        count, shards = evaluation.validation_tasks, evaluation.shards
        return self._measure(tasks, self.play(tasks, team, "validation", 0, count, shards, plan, self.config.sampling))

    def test(self, tasks: Node, team: Node, greedy: bool) -> Node:
        """Figures on the test tasks."""
        evaluation, sampling = self.config.evaluation, self.config.sampling
        plan = {"name": "independent", "samples": 1 if greedy else evaluation.samples}
        sampling = dataclasses.replace(sampling, temperature=0.0) if greedy else sampling
        return self._measure(
            tasks, self.play(tasks, team, "test", 0, evaluation.tasks, evaluation.shards, plan, sampling)
        )

    def show(self, tasks: Node, team: Node) -> list[Node]:
        """Credit on a few test tasks, for the report: [rollout, grade, assign]. A tree only for a method that wants one."""
        count, plan = self.config.evaluation.shown_tasks, self._plays("tree" if self._wants_tree else "independent")
        played = self.play(tasks, team, "show", 0, count, 1, plan, self.config.sampling)
        judged = self.grade(tasks, played)
        return [*played, *judged, *self.assign(tasks, played, judged, self.replay(tasks, team, played, judged))]

    def report(self, **inputs: Node | Sequence[Node]) -> Node:
        hidden = ("store", "runs", "name")
        settings = {k: v for k, v in self.config.model_dump(mode="json").items() if k not in hidden}
        settings["name"] = self.config.name
        return self._add(stages.REPORT, inputs, config=settings, agents=self.agents, duties=dict(self.topology.DUTIES))

    def _measure(self, tasks: Node, played: Shards) -> Node:
        inputs = {"rollout": played, "grade": self.grade(tasks, played)}
        return self._add(stages.MEASURE, inputs, topology=self.config.topology)

    def play(
        self, tasks: Node, team: Node, what: str, start: int, count: int, shards: int, plan: dict, sampling: Sampling
    ) -> Shards:
        """Plays of tasks start … start + count - 1 of a shuffle, in shards of whole groups."""
        speak = self._speak(what, sampling)
        order = f"{self.config.seed}/{what.split('/')[0]}"
        edges = [start + count * i // shards for i in range(shards + 1)]
        return [
            self._add(
                stages.ROLLOUT,
                {"tasks": tasks, "policies": team},
                plan=plan,
                take={"seed": order, "start": low, "count": high - low, "window": count},
                **speak,
            )
            for low, high in zip(edges[:-1], edges[1:], strict=True)
            if high > low
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
        how = {"branching": self._branching()} if plan == "tree" else {"samples": self.config.rollout.samples}
        return {"name": plan, **how}

    @property
    def _wants_tree(self) -> bool:
        return getattr(leaf.find("credit", self.config.credit["name"]), "TREE", False)

    def _branching(self) -> dict[str, int]:
        """Branches by role, by default those of its duty; a tree without any has nothing to compare."""
        usual = {role: BRANCHES[duty] for role, duty in self.topology.DUTIES.items()}
        branching = self.config.rollout.branching or usual
        for role in branching:
            if role not in self.agents:
                raise MeritError(leaf.unknown("rollout.branching: role", role, self.agents))
        if max(branching.values(), default=1) < 2:
            raise MeritError(f"rollout.plan=tree wants rollout.branching, as in rollout.branching.{self.agents[0]}=3")
        return branching

    def _credit(self) -> dict[str, Any]:
        """The credit section; past the replay budget's rounds no task is replayed."""
        credit = self._asking
        spent = 0 < credit.get("rounds", 0) <= self.plan.round
        return {**credit, "share": 0.0} if spent else credit

    @cached_property
    def _asking(self) -> dict[str, Any]:
        """The credit section with digests of the models that it asks, once it is clear that all of it can be had."""
        credit = self.config.credit
        if self._wants_tree and self.config.rollout.plan != "tree":
            raise MeritError(
                f"credit.name={credit['name']} reads a tree of plays, and rollout.plan={self.config.rollout.plan}; set "
                "rollout.plan=tree, or take a method that replays (credit.name=counterfactual)"
            )
        for option in ("protocols", "unions"):
            for role in credit.get(option, {}):
                if role not in self.agents:
                    raise MeritError(leaf.unknown(f"credit.{option}: role", role, self.agents))
        maker = getattr(leaf.find("credit", credit["name"]), "TRAINED_BY", "")
        if maker and not credit.get("adapter"):
            raise MeritError(
                f"credit.name={credit['name']} wants credit.adapter, the folder of a trained reward model; make one with "
                f"`python workflows/run.py {maker}`, then give credit.adapter=runs/{maker}/adapter"
            )
        given = Path(credit.get("adapter") or ".").expanduser()
        if credit.get("adapter") and given.exists() and not (given / policy.ADAPTER).is_file():
            raise MeritError(
                f"credit.adapter={credit['adapter']}: no adapter in PEFT format (there is no {policy.ADAPTER} in it); "
                "give the folder of one, such as runs/NAME/adapters/critic"
            )
        if credit.get("adapter") and not credit.get("model") and not self.trains:
            raise MeritError(
                "credit.adapter sits on a base model, and scripted agents have none; give credit.model too"
            )
        return model.keyed(credit)


def _text(role: str, template: str) -> str:
    """A template, or the contents of the file that `@FILE` names."""
    if not template.startswith("@"):
        return template
    file = Path(template[1:])
    if not file.is_file():
        raise MeritError(f"team.prompts.{role}: there is no file {str(file)!r}")
    return file.read_text(encoding="utf-8").rstrip("\n")
