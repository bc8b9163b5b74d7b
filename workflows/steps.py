"""The steps that workflows are made of: each adds tasks to the plan, with just the options that decide their result."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from apps import leaf, stages
from apps.inference.driver import seed_of
from apps.records import MeritError
from apps.training import foresee
from apps.training.options import Options as Training
from workflows import resolve
from workflows.chain import Story
from workflows.config import Section
from workflows.plan import Node
from workflows.playing import Playing, Shards


class Steps(Playing):
    """The steps of one run, or of one stage of it: those of playing, and from graded plays to new policies and the report."""

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
        if config.rollout.overlap:
            resolve.check_overlap(config)
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
        hidden = ("store", "runs", "name", "pack")
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

    def _credit(self) -> dict[str, Any]:
        """The credit section; past the replay budget's rounds no task is replayed."""
        credit = self._whole_credit
        spent = 0 < credit.get("rounds", 0) <= self.plan.round
        return {**credit, "share": 0.0} if spent else credit

    @cached_property
    def _whole_credit(self) -> dict[str, Any]:
        return resolve.credit(self.config, self.topology, self.trains, bool(self.reward_model))
