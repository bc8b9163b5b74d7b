"""A run as a chain of stages: `stages: [cpt, sft, reward_model, {name: grpo, rounds: 3}]`. Not a stage itself.

A stage's name is that of a workflow with a function `stage`, that of an objective (short for post-training with it), or one of
SHORT. Its other keys are laid over what the run says. One stage hands a `Standing` on to the next; what the report
tells of all of them is a `Story`. A run without `stages` is a chain of one.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from apps import leaf
from apps.records import MeritError
from workflows.config import PostTrain, Run, defaults, overlay, validated
from workflows.plan import Node

if TYPE_CHECKING:
    from workflows.steps import Steps

WHOLE = "post_train"  # the stage that a run without `stages` consists of
RUN = ("name", "seed", "store", "runs", "pack")  # what a stage cannot say otherwise than its run
TEAM = ("model", "topology", "team", "engine", "sampling", "verifier", "evaluation")  # nor this: figures are compared
SHARED = (*RUN, "model", "tasks", "verifier", "topology", "team", "engine", "sampling")  # with stages of other kinds

IMITATION = {  # K plays a task, and fine-tuning on all turns of those that a verifier finds right
    "objective": {"name": "sft"},
    "credit": {"name": "uniform"},
    "advantage": {"name": "threshold"},
    "rollout": {"plan": "independent"},
}
SHORT: dict[str, dict[str, Any]] = {
    "star": {**IMITATION, "restart": True},  # arXiv 2203.14465: each round trains the untrained team again
    "rest": IMITATION,  # arXiv 2308.08998: each round goes on from the last one's team
    "distill": {**IMITATION, "rounds": 1, "promotion": {"rule": "always"}},
    "iterative_dpo": {"objective": {"name": "dpo"}},  # arXiv 2312.11456: pairs of each round's own plays
}


@dataclass(frozen=True, slots=True)
class Standing:
    """How things stand between two stages: what the one hands on to the next."""

    team: Node  # the policies of all agents
    scores: Node  # their figures on the validation tasks
    base: Node | None = None  # a whole model that took the place of the run's
    reward_model: tuple[Node, ...] = ()  # for credit methods that ask one; several are an ensemble


@dataclass(slots=True)
class Story:
    """What the report is made from: nodes in the order of the rounds."""

    curve: list[Node]  # scores on the validation tasks: of the untrained team, then of each round
    decisions: list[Node] = field(default_factory=list)
    stages: dict[str, Node] = field(default_factory=dict)  # scores of the team that each stage left
    history: dict[str, list[Node]] = field(
        default_factory=lambda: {name: [] for name in ("rollout", "grade", "replay", "assign", "batch", "train")}
    )

    def tell(self, **made: list[Node | None]) -> None:
        """Adds a round's nodes by stage; None stands for what was not asked for."""
        for name, nodes in made.items():
            self.history[name] += [node for node in nodes if node]


def rebased(steps: Steps, standing: Standing, base: Node) -> Standing:
    """On a new base model: what was trained on the old one does not fit it, so the team is untrained again."""
    standing = replace(standing, base=base, reward_model=())
    steps = steps.onward(standing)
    team = steps.untrained()
    return replace(standing, team=team, scores=steps.validate(team))


def check_weights(steps: Steps, shared: bool = True) -> None:
    """MeritError where there is no model to train, or, for weights that all agents are to share, more than one."""
    if not steps.trains:
        raise MeritError("scripted agents have no model to train; take engine.name=transformers")
    if shared and steps.models:
        raise MeritError(
            f"it makes one base model for all agents, and {', '.join(steps.models)} have their own (team.models); leave those out"
        )


@dataclass(frozen=True, slots=True)
class Link:
    """A stage of the run, ready to be added to its plan."""

    label: str  # unique in the run: "grpo", or "grpo 2" for the second of the name
    where: str  # in the settings, for faults; "" in a run without `stages`
    module: ModuleType  # a workflow that offers `stage(config, steps, standing, story) -> Standing`
    config: Run

    def add(self, steps: Steps, standing: Standing, story: Story) -> Standing:
        """Adds its nodes; `steps` are those of any stage of the run."""
        with _named(self.where):
            standing = self.module.stage(self.config, steps.onward(standing, self.config), standing, story)
        story.stages[self.label] = standing.scores
        return standing


def links(config: PostTrain) -> list[Link]:
    """The stages in order, every setting checked; a fault names its stage."""
    if not config.stages:
        return [Link(WHOLE, "", importlib.import_module(f"workflows.{WHOLE}"), config)]
    found: list[Link] = []
    for number, entry in enumerate(config.stages):
        given = {"name": entry} if isinstance(entry, str) else entry
        name = str(given.get("name", ""))
        count = 1 + sum(link.label.partition(" ")[0] == name for link in found)
        with _named(where := f"stages[{number}] ({name})"):
            found.append(Link(name if count == 1 else f"{name} {count}", where, *_settled(config, name, given)))
    return found


def kinds() -> list[str]:
    """The workflows that can be a stage of a chain."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return [file.stem for file in files if "\ndef stage(" in file.read_text(encoding="utf-8")]


def names() -> list[str]:
    """All that a stage can be called."""
    return list(dict.fromkeys([*kinds(), *SHORT, *_objectives()]))


def _objectives() -> list[str]:
    """Those that teach an agent what to say; others teach a scalar head."""
    found = {name: leaf.find("training/objectives", name) for name in leaf.names("training/objectives")}
    return [name for name, module in found.items() if not module.NEEDS & {"scores", "values"}]


def told() -> dict[str, str]:
    """What a stage can be called, with a line on each."""
    found = {name: f"post_train with {leaf.summary('training/objectives', name)}" for name in _objectives()}
    found |= {name: f"post_train with {_words(settings)}" for name, settings in SHORT.items()}
    for name in kinds():
        found[name] = (importlib.import_module(f"workflows.{name}").__doc__ or "").strip().split("\n")[0]
    return {name: found[name] for name in names()}


def _words(settings: Mapping[str, Any]) -> str:
    """Settings as a user would give them."""
    flat = {
        f"{key}.{name}": value
        for key, inner in settings.items()
        if isinstance(inner, Mapping)
        for name, value in inner.items()
    }
    flat |= {key: value for key, value in settings.items() if not isinstance(value, Mapping)}
    return " ".join(f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in flat.items())


def _settled(run: PostTrain, name: str, given: Mapping[str, Any]) -> tuple[ModuleType, Run]:
    """The workflow that a stage is, and its settings."""
    if not name:
        raise MeritError(
            f"{dict(given)} has no name; an entry is a name, or as in {{name: grpo, rounds: 3}}, with a space after each colon"
        )
    if name not in names():
        raise MeritError(leaf.unknown("stage", name, names()))
    changes = {key: value for key, value in given.items() if key != "name"}
    for key in ("stages", *RUN, *TEAM):
        if key in changes:
            raise MeritError(f"{key} is the whole run's, and one stage cannot have another; leave it out here")
    module = importlib.import_module(f"workflows.{name if name in kinds() else WHOLE}")
    below = run.model_dump(mode="json") | {"stages": []}
    if issubclass(module.Config, PostTrain):
        below = overlay(below, SHORT.get(name, {} if name in kinds() else {"objective": {"name": name}}))
    else:
        own = defaults(module.Config)
        below = own | {key: below[key] for key in SHARED if key in own}
    return module, validated(module.Config, overlay(below, changes))


@contextmanager
def _named(where: str) -> Iterator[None]:
    """Puts the stage before a fault in what was asked of it."""
    try:
        yield
    except MeritError as error:
        raise MeritError(f"{where}: {error}" if where else str(error)) from error
