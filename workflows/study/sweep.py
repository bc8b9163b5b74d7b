"""A study: all runs of a manifest as one DAG over one store. What they have in common is one task, also while it is in flight.

Recorded here, with every key, before anything runs; sweep_live.py carries it out.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from apps import stages
from apps.records import MeritError
from workflows import config as configuration
from workflows.plan import Node, Plan
from workflows.store import Store
from workflows.study import expand, manifest
from workflows.study.dotted import flat, nested
from workflows.study.expand import Run
from workflows.study.manifest import Sheet

SHOWN = 12  # runs that a dry run lists


@dataclass(frozen=True, slots=True)
class Member:
    """A run in the study's DAG, or its first rounds."""

    run: Run
    config: configuration.Run
    plan: Plan
    results: Mapping[str, Node]
    wanted: tuple[Node, ...]  # when these are done, it is
    whole: bool  # not its first rounds alone

    def nodes(self) -> list[Node]:
        """All that leads to what is wanted, each after its inputs."""
        needed: set[str] = set()
        pending = list(self.wanted)
        while pending:
            node = pending.pop()
            if node.key not in needed:
                needed.add(node.key)
                pending += itertools.chain.from_iterable(node.inputs.values())
        return [node for key, node in self.plan.nodes.items() if key in needed]


@dataclass(frozen=True, slots=True)
class Study:
    """All runs of a manifest, and every node that was recorded for any of them."""

    sheet: Sheet
    workflow: ModuleType
    name: str
    base: Mapping[str, Any]  # settings below every run, defaults and all
    given: Mapping[str, Any]  # of them what was said
    runs: Sequence[Run]
    recorded: dict[str, Node] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return Path(self.base["runs"]).absolute() / self.name

    @property
    def store(self) -> str:
        return self.base["store"]

    @property
    def configurations(self) -> list[str]:
        return list(dict.fromkeys(run.configuration for run in self.runs))

    def member(self, run: Run, rounds: int | None = None) -> Member:
        """The run recorded; with `rounds` its first ones alone, as far as their validation."""
        given = configuration.overlay(self.base, run.changes)
        given |= {"name": run.name, "runs": str(Path(self.base["runs"]) / self.name)}
        if rounds is not None:
            given["rounds"] = rounds
        plan = Plan(within=self.recorded)
        try:
            config = configuration.validated(self.workflow.Config, given)
            results = self.workflow.dag(config, plan)
        except MeritError as error:
            raise MeritError(f"{self.sheet.source.name}, run {run.name}: {error}") from error
        whole = rounds is None or rounds == self.rungs[-1]
        return Member(run, config, plan, results, _last(plan) if whole else (results["scores"],), whole)

    @property
    def rungs(self) -> Sequence[int | None]:
        """Rounds at each rung; without halving there is one, of whole runs."""
        halving = self.sheet.manifest.halving
        return halving.rungs if halving else (None,)

    def keep(self, entered: int) -> int:
        """How many configurations go on from a rung."""
        halving = self.sheet.manifest.halving
        return max(1, int(entered / halving.eta)) if halving else entered

    def members(self, names: Iterable[str], rounds: int | None) -> list[Member]:
        """The runs of these configurations."""
        chosen = set(names)
        return [self.member(run, rounds) for run in self.runs if run.configuration in chosen]

    def decide(self, members: Sequence[Member], rounds: int) -> Node:
        """Which configurations go on; `members` are those that did not fail."""
        names = list(dict.fromkeys(member.run.configuration for member in members))
        scores = {name: [m.wanted[0] for m in members if m.run.configuration == name] for name in names}
        plan = Plan(within=self.recorded)
        return plan.add(stages.RUNG, scores, order=names, keep=self.keep(self.entered(rounds)), rounds=rounds)

    def entered(self, rounds: int) -> int:
        """How many configurations come to a rung, if none fails."""
        count = len(self.configurations)
        for rung in self.rungs[: self.rungs.index(rounds)]:
            count = self.keep(count) if rung else count
        return count

    def tables(self, members: Sequence[Member], faults: Mapping[str, str], left_out: Mapping[str, str]) -> Node:
        """The study's last task. `members` as far as they came; why runs failed or went no further, by their names."""
        states = {name: ("failed", why) for name, why in faults.items()}
        states |= {name: ("left out", why) for name, why in left_out.items()}
        inputs: dict[str, Sequence[Node]] = {}
        for member in members:
            if member.run.name not in faults:
                kept = member.results if member.run.name not in left_out else {"scores": member.wanted[0]}
                inputs |= {f"{member.run.name}/{what}": [node] for what, node in kept.items()}
        rows = []
        for run in self.runs:
            state, reason = states.get(run.name, ("finished", ""))
            rows.append({**dataclasses.asdict(run), "state": state, "reason": reason})
        name, figures = self.workflow.__name__.rpartition(".")[2], self.sheet.manifest.figures
        plan = Plan(within=self.recorded)
        return plan.add(stages.SWEEP, inputs, runs=rows, name=self.name, workflow=name, figures=figures)

    def text(self) -> str:
        """The manifest as it was carried out: with the settings of other files and of the command line."""
        given = self.sheet.manifest.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        given |= {"name": self.name, "base": dict(self.given), "config": ""}
        return yaml.safe_dump({k: v for k, v in given.items() if v != ""}, sort_keys=False, allow_unicode=True)


def study(
    file: Path, find: Callable[[str], ModuleType], config: Path | None, words: Sequence[str], **fixed: Any
) -> Study:
    """The study of a manifest; `find` gives a workflow by its name.

    Settings are laid over one another: defaults, `config:`, --config, `base:`, words.
    """
    sheet = manifest.read(file)
    given = _given(sheet, file, config, words, {key: value for key, value in fixed.items() if value is not None})
    try:
        workflow = find(sheet.manifest.workflow)
    except MeritError as error:
        raise sheet.fault("workflow", str(error)) from error
    name = given.pop("name", "") or sheet.manifest.name or file.stem
    base = configuration.overlay(configuration.defaults(workflow.Config), given)
    runs = expand.runs(sheet, base)
    _check_words(sheet, words, runs)
    found = Study(sheet, workflow, name, base, given, runs)
    if sheet.manifest.halving:
        _check_halving(found)
    return found


def planned(study: Study) -> list[list[Member]]:
    """The runs of each rung. Who will go on is not known: of later rungs the first ones are shown, which count alike."""
    found, names = [], study.configurations
    for rounds in study.rungs:
        found.append(study.members(names, rounds))
        if rounds is not None:
            names = names[: study.keep(len(names))]
    return found


def decisions(study: Study, rungs: Sequence[Sequence[Member]]) -> list[Node]:
    """The tasks that look at several runs: the rungs, and the tables over all of them if none fails."""
    found = [study.decide(members, rounds) for rounds, members in zip(study.rungs[:-1], rungs[:-1], strict=True)]
    reached = {m.run.name: (m, rounds) for rounds, members in zip(study.rungs, rungs, strict=True) for m in members}
    left_out = {name: out_after(rounds) for name, (_, rounds) in reached.items() if rounds != study.rungs[-1]}
    return [*found, study.tables([member for member, _ in reached.values()], {}, left_out)]


def out_after(rounds: int | None) -> str:
    """What is said of a run that a rung left out."""
    return f"after {rounds} rounds"


def table(study: Study, rungs: Sequence[Sequence[Member]]) -> str:
    """What a dry run prints: the runs, and their tasks by stage: in all, distinct, and in the store."""
    store, every, distinct = Store(study.store), Counter(), {}
    for nodes in [*(member.nodes() for member in itertools.chain(*rungs)), decisions(study, rungs)]:
        every.update(node.stage.name for node in nodes)
        distinct |= {node.key: node for node in nodes}
    once = Counter(node.stage.name for node in distinct.values())
    done = Counter(node.stage.name for node in distinct.values() if store.has(node.stage.name, node.key))
    lines = [f"study: {study.name}, {study.workflow.__name__.rpartition('.')[2]}", *_listed(study, rungs), ""]
    lines.append(f"{'stage':<14}{'in all':>9}{'distinct':>10}{'in store':>10}")
    lines += [f"{stage:<14}{count:>9}{once[stage]:>10}{done[stage]:>10}" for stage, count in every.items()]
    lines.append(f"{'all':<14}{every.total():>9}{once.total():>10}{done.total():>10}")
    lines += ["", f"runs: {len(study.runs)}", f"distinct tasks: {once.total()} (of {every.total()} in all)"]
    return "\n".join(lines)


def _listed(study: Study, rungs: Sequence[Sequence[Member]]) -> list[str]:
    width = max(len(run.name) for run in study.runs) + 2
    lines = []
    for run in study.runs[:SHOWN]:
        told = ", ".join(f"{key}={value}" for key, value in run.settings.items())
        lines.append(f"  {run.name:<{width}}seed={run.seed}{', ' if told else ''}{told}")
    if len(study.runs) > SHOWN:
        lines.append(f"  … and {len(study.runs) - SHOWN} more")
    for rounds, members in zip(study.rungs, rungs, strict=True):
        if rounds is not None:
            lines.append(f"rung of {rounds} rounds: {len(members)} runs")
    return lines


def _given(
    sheet: Sheet, file: Path, config: Path | None, words: Sequence[str], fixed: Mapping[str, Any]
) -> dict[str, Any]:
    """What was said of every run."""
    below: dict[str, Any] = {}
    if sheet.manifest.config:
        below = configuration.read_yaml(file.parent / sheet.manifest.config)
    if config:
        below = configuration.overlay(below, configuration.read_yaml(config))
    below = configuration.overlay(below, nested(sheet.manifest.base))
    for word in words:
        below = configuration.overlay(below, configuration.parse_word(word))
    return below | dict(fixed)


def _check_words(sheet: Sheet, words: Sequence[str], runs: Sequence[Run]) -> None:
    """A word for what the manifest varies would be in vain."""
    varied = {key for run in runs for key in flat(run.changes)}
    for word in words:
        for key in flat(configuration.parse_word(word)):
            if key in varied:
                raise MeritError(f"{word}: {key} is what {sheet.source.name} varies; change it there")


def _check_halving(study: Study) -> None:
    sheet, name = study.sheet, study.workflow.__name__.rpartition(".")[2]
    if "rounds" not in study.workflow.Config.model_fields or name != "post_train":
        raise sheet.fault("halving", f"rungs are rounds with validation scores, which runs of {name} do not have")
    if any(configuration.overlay(study.base, run.changes).get("stages") for run in study.runs):
        raise sheet.fault(
            "halving", "rungs are rounds of the whole run; with `stages` it is not clear whose rounds are meant"
        )
    if len(study.configurations) < 2:
        raise sheet.fault("halving", "there is one configuration, so there is nothing to choose from")


def _last(plan: Plan) -> tuple[Node, ...]:
    """The nodes that no other one waits for."""
    taken = {given.key for node in plan.nodes.values() for nodes in node.inputs.values() for given in nodes}
    return tuple(node for key, node in plan.nodes.items() if key not in taken)
