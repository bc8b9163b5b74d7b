"""The steps that workflows are made of: each adds tasks to the plan, with just the options that decide their result."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from apps import leaf, stages
from apps.inference.driver import seed_of
from apps.records import MeritError, Sampling
from apps.training import foresee, policy
from apps.training.options import Options as Training
from workflows import model, resolve
from workflows.chain import Standing, Story
from workflows.config import PostTrain, Section
from workflows.plan import Node, Plan

Shards = list[Node]


class Steps:
    """The steps of one run, or of one stage of it: a configuration and the plan that it is turned into."""

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

    def onward(self, standing: Standing, config: PostTrain | None = None) -> Steps:
        """The steps of a stage of the same run, from where the last one left things."""
        steps = Steps(config if isinstance(config, PostTrain) else self.config, self.plan, standing)
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
        """The team as it comes: every agent is its base model."""
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

    def replay(
        self,
        tasks: Node,
        played: Shards,
        judged: Shards,
        credit: Section | None = None,
        **asked: Node | Shards,
    ) -> list[Node | None]:
        """What the credit method, or that of `credit`, asks for, each shard of who played it; None where it asks for nothing.

        `asked` is what is asked besides the team: a `reward_model` that was trained in this very run.
        """
        credit = credit or self._credit()
        if not leaf.find("credit", credit["name"]).asks(leaf.options("credit", credit)):
            return [None] * len(played)
        own = self.trained("reward_model", "credit", credit) | self.trained("verifier", "reward", self.verifier)
        speak = self._speak(f"replay/{self.plan.round}", self.config.sampling)
        return [
            self.add(
                stages.REPLAY,
                {
                    "tasks": tasks,
                    "policies": shard.inputs["policies"],
                    "rollout": shard,
                    "grade": verdicts,
                    **self.start,
                    **own,
                    **asked,
                },
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
            self.add(
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
        return {"calibration": self.add(stages.CALIBRATE, inputs, **options)}

    def train(
        self,
        team: Node,
        origin: Node,
        played: Shards,
        judged: Shards,
        credit: Shards,
        agents: Sequence[str],
        foreseen: dict[str, Shards] | None = None,
        teacher: Node | None = None,
    ) -> list[Node]:
        """New weights for each of `agents`, from those that it has in `origin`, on the turns that its policy in `team` spoke.

        `teacher` is a team for objectives that read a teacher's distributions.
        """
        config, agents, foreseen = self.config, list(agents), foreseen or {}
        inputs = {"rollout": played, "grade": judged, "assign": credit, "policies": team, **foreseen}
        rows = self.add(
            stages.BATCH,
            {**inputs, **(self.start if "values" in foreseen else {})},
            agents=agents,
            advantage=config.advantage,
            objective=config.objective,
            **({"overlong": config.rollout.overlong} if config.rollout.overlong else {}),
            **({"share": self.share} if self.share else {}),
            **(self._lessons() if "values" in foreseen else {}),
        )
        taught = self._taught_by(teacher)
        return [self.train_one(rows, origin, agent, config.objective, config.training, **taught) for agent in agents]

    def _taught_by(self, teacher: Node | None) -> dict[str, Node]:
        """The teacher as an input of `train`, if the objective reads its distributions."""
        name = self.config.objective["name"]
        if "teacher" not in leaf.find("training/objectives", name).NEEDS:
            return {}
        if teacher is None:
            raise MeritError(
                f"objective.name={name} reads a teacher's distributions, and there is no teacher: take the workflow, or the stage, "
                "`distill`"
            )
        return {"teacher": teacher}

    def _lessons(self) -> dict[str, Any]:
        view = self.config.value_model.view
        return {"learners": foresee.learners(self.agents, view), "view": view, "base_model": self.model}

    def train_one(
        self, rows: Node, origin: Node | None, who: str, objective: Section, training: Training, **asked: Node
    ) -> Node:
        """A policy, or a value model, trained on its rows from where `origin` left it, if anywhere; `asked` are further inputs."""
        goes_on = {"policies": origin} if origin else {}
        return self.add(
            stages.TRAIN,
            {"batch": rows, **goes_on, **({} if who in self.models else self.start), **asked},
            agent=who,
            base_model=self.models.get(who, self.model),
            objective=objective,
            training=training.model_dump(mode="json"),
            seed=seed_of(self.config.seed, "training", self.plan.round, who) >> 1,
        )

    def gather(self, team: Node, adapters: Sequence[Node]) -> Node:
        return self.add(stages.GATHER, {"policies": team, "train": adapters})

    def trials(self, adapters: Sequence[Node]) -> list[list[Node]]:
        """What is tried together: all new adapters, or one after another in the topology's order."""
        return [list(adapters)] if self.config.promotion.unit == "team" else [[adapter] for adapter in adapters]

    def promote(self, team: Node, scores: Node, candidate: Node, candidate_scores: Node, **fixed: Any) -> Node:
        """Who plays on. Its artifact holds the team and that team's scores. `fixed` is said of the rule by the caller."""
        inputs = {"policies": team, "scores": scores, "candidate": candidate, "candidate_scores": candidate_scores}
        tried = [adapter.options["agent"] for adapter in candidate.inputs["train"]]
        rule = self.config.promotion.model_dump(exclude={"unit"}) | fixed
        return self.add(stages.PROMOTE, inputs, promotion=rule, agents=tried)

    def validate(self, team: Node) -> Node:
        """Figures on the validation tasks, sampled: the same tasks and random numbers in every round."""
        evaluation, tasks = self.config.evaluation, self.tasks("validation")
        plan = {"name": "independent", "samples": evaluation.validation_samples}
        count, shards = evaluation.validation_tasks, evaluation.shards
        return self._measure(tasks, self.play(tasks, team, "validation", 0, count, shards, plan, self.config.sampling))

    def tests(self, team: Node) -> dict[str, Node]:
        """Figures on the test tasks, greedy and sampled."""
        evaluation, sampled, tasks = self.config.evaluation, self.config.sampling, self.tasks("test")
        found = {}
        for mode, samples, sampling in (
            ("greedy", 1, dataclasses.replace(sampled, temperature=0.0)),
            ("sampled", evaluation.samples, sampled),
        ):
            plan = {"name": "independent", "samples": samples}
            played = self.play(tasks, team, "test", 0, evaluation.tasks, evaluation.shards, plan, sampling)
            found[mode] = self._measure(tasks, played)
        return found

    def show(self, team: Node) -> list[Node]:
        """Credit on a few test tasks, for the report: [rollout, grade, assign]. A tree only for a method that wants one."""
        plan, tasks = self._plays("tree" if resolve.wants_tree(self.config) else "independent"), self.tasks("test")
        played = self.play(tasks, team, "show", 0, self.config.evaluation.shown_tasks, 1, plan, self.config.sampling)
        judged = self.grade(tasks, played)
        return [*played, *judged, *self.assign(tasks, played, judged, self.replay(tasks, played, judged))]

    def report(
        self, story: Story, before: dict[str, Node], after: dict[str, Node], shown: list[Node], shown_after: list[Node]
    ) -> Node:
        """What the run was and what came of it; a chain's stages are told one by one."""
        hidden = ("store", "runs", "name")
        settings = {k: v for k, v in self.config.model_dump(mode="json").items() if k not in hidden}
        settings["name"] = self.config.name
        inputs = {f"before_{mode}": node for mode, node in before.items()}
        inputs |= {f"after_{mode}": node for mode, node in after.items()}
        inputs |= {"tasks": self.tasks("test"), "show_before": shown, "show_after": shown_after, **story.history}
        inputs |= {"validation": story.curve, "promote": story.decisions}
        options: dict[str, Any] = {"agents": self.agents, "duties": dict(self.topology.DUTIES)}
        if self.config.stages:
            inputs["stages"], options["stages"] = list(story.stages.values()), list(story.stages)
        inputs["everything"] = list(self.nodes.values())
        return self.add(stages.REPORT, inputs, config=settings, **options)

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

    def _credit(self) -> dict[str, Any]:
        """The credit section; past the replay budget's rounds no task is replayed."""
        credit = self._whole_credit
        spent = 0 < credit.get("rounds", 0) <= self.plan.round
        return {**credit, "share": 0.0} if spent else credit

    @cached_property
    def _whole_credit(self) -> dict[str, Any]:
        return resolve.credit(self.config, self.topology, self.trains, bool(self.reward_model))
