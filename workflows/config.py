"""The typed configuration of a run: defaults, then a YAML file, then `key=value` words, checked before anything starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import Field, ValidationError

from apps import leaf, records
from apps.records import MeritError, Sampling
from apps.training.options import Options as Training

Section = dict[str, Any]  # {"name": a leaf, …its options}


class Run(records.Options):
    """What every workflow's configuration has."""

    name: str = Field("", description="of the run's folder; default: the workflow's name", pattern=r"^(\w[\w.-]*)?$")
    seed: int = Field(0, ge=0, lt=2**63, description="of everything that is drawn")
    store: str = Field("store", description="folder of finished results, shared by all runs")
    runs: str = Field("runs", description="folder of the runs")
    pack: bool = Field(True, description="put results that nobody waits for into few files, below store/packed")


class TeamSettings(records.Options):
    """How the agents are prompted, and what each of them is made of."""

    system: str = Field("", description="system message of every role")
    prompts: dict[str, str] = Field(
        {}, description="role: template with {fields}, or @FILE; default: the topology's own"
    )
    share: dict[str, str] = Field(
        {}, description="role: another role, with whose policy it speaks; both are trained as one, on the rows of both"
    )
    models: dict[str, str] = Field(
        {}, description="role: a base model of its own, a local Hugging Face folder; default: `model`"
    )
    adapters: str = Field(
        "",
        description="what the team starts with: a folder with an adapter for each agent (runs/NAME/adapters); default: none",
    )


class Rollout(records.Options):
    """What is played in a training round."""

    tasks: int = Field(16, ge=1, description="tasks a round")
    plan: Literal["independent", "tree", "best"] = Field(
        "tree",
        description="how plays of one task are related: not at all, all branches of every turn, or on from the best of each",
    )
    samples: int = Field(8, ge=1, description="plays of each task, for `independent`")
    branching: dict[str, Annotated[int, Field(ge=1)]] = Field(
        {},
        description="branches at each role's turns, for `tree` and `best`; default by duty: solve 3, check 4, revise 3, report 1",
    )
    shards: int = Field(2, ge=1, description="tasks of the DAG that a round's rollouts are split into")
    overlap: int = Field(
        0, ge=0, le=1, description="1: a round is played, one policy behind, while the last one trains"
    )
    waves: int = Field(
        1,
        ge=1,
        description="dynamic sampling: up to so many waves, each of the tasks still wanted so that `tasks` groups differ in outcome",
    )
    hint: str = Field(
        "",
        description="second tries (STaR): what nobody got right is played once more with this text, such as ' (The answer is {answer}.)', behind the question, and learnt without it",
    )
    overlong: int = Field(
        0, ge=0, description="tokens before sampling.max_new_tokens over which a turn's reward falls by 1; 0 none"
    )


class ValueModel(records.Options):
    """Who says beforehand what a turn will be worth, for an advantage that wants it (gae)."""

    view: Literal["own", "team"] = Field(
        "own", description="what it reads: an agent's own prompt, or all of the team so far (one critic for all: MAPPO)"
    )
    clip: float | None = Field(0.2, gt=0, description="how far a round may move what it says; null: anywhere")
    training: Training = Field(Training(epochs=2), description="how it is trained, as `training`; LoRA only")


class Evaluation(records.Options):
    """What is measured, on tasks that were never trained on."""

    tasks: int = Field(500, ge=1, description="test tasks, before and after")
    samples: int = Field(2, ge=1, description="sampled plays of each test task; one greedy play comes on top")
    validation_tasks: int = Field(120, ge=1, description="validation tasks, every round")
    validation_samples: int = Field(2, ge=1, description="sampled plays of each")
    shards: int = Field(2, ge=1, description="tasks of the DAG that an evaluation is split into")
    shown_tasks: int = Field(
        24, ge=1, description="test tasks whose credit is worked out before and after, for the report"
    )


class Promotion(records.Options):
    """When new adapters are let in."""

    unit: Literal["team", "adapter"] = Field(
        "team",
        description="what is tried: the round's adapters together, or one after another, each with a validation of its own",
    )
    rule: Literal["better", "not_worse", "always"] = Field("not_worse", description="better, not_worse or always")
    alpha: float = Field(
        0.25, gt=0, lt=1, description="level of the paired test; high, since a loss is the worse error here"
    )


class Played(Run):
    """What every workflow has in which a team plays tasks."""

    model: str = Field("embedded", description="a local Hugging Face folder, or the model that comes with Merit")
    tasks: Section = Field({"name": "arithmetic", "levels": [4, 5]}, description="a family of tasks")
    verifier: Section = Field({"name": ""}, description="who judges answers; default: the family's own")
    topology: Section = Field({"name": "solve_critique_revise"}, description="how the team works together")
    team: TeamSettings = TeamSettings()
    engine: Section = Field({"name": "transformers"}, description="who generates tokens")
    sampling: Sampling = Field(Sampling(), description="of plays: a training round's, and those that are measured")


class PostTrain(Played):
    """The configuration of `post_train`. Sections with a `name` choose a leaf; their other keys are its options."""

    stages: tuple[str | Section, ...] = Field(
        (),
        description="what the run chains, as in [sft, {name: grpo, rounds: 3}]; default: post-training alone. Known: list stages",
    )
    rounds: int = Field(5, ge=0, description="rounds of rollout, credit and training")
    restart: bool = Field(
        False, description="each round trains the untrained team anew, not the one that the last round left (STaR)"
    )
    rollout: Rollout = Rollout()
    credit: Section = Field({"name": "shapley", "repeats": 2}, description="who gets the reward and who the blame")
    shuffle_credit: bool = Field(False, description="control experiment: values dealt out at random among the turns")
    advantage: Section = Field({"name": "at_grpo", "epsilon": 0.1}, description="from values to advantages")
    objective: Section = Field({"name": "grpo", "beta": 0.0}, description="the loss")
    schedule: Section = Field({"name": "simultaneous"}, description="who is trained in which round, and beside whom")
    training: Training = Training(epochs=2)
    value_model: ValueModel = ValueModel()
    evaluation: Evaluation = Evaluation()
    promotion: Promotion = Promotion()


LEAVES = {  # section -> folder of leaves
    "tasks": "tasks",
    "topology": "topologies",
    "engine": "inference/engines",
    "verifier": "reward",
    "credit": "credit",
    "advantage": "training/advantages",
    "objective": "training/objectives",
    "schedule": "training/schedules",
}
KINDS = {"tasks": "tasks", "topologies": "topologies", "engines": "inference/engines", "verifiers": "reward"}
KINDS |= {
    "credit": "credit",
    "advantages": "training/advantages",
    "objectives": "training/objectives",
    "schedules": "training/schedules",
    "tools": "tools",
}

C = TypeVar("C", bound=Run)


def load(kind: type[C], file: Path | None, words: Sequence[str], **fixed: Any) -> C:
    """The configuration of a workflow, all of its leaves checked too. Faults are MeritErrors that say where."""
    given = overlay(defaults(kind), read_yaml(file)) if file else defaults(kind)
    for word in words:
        given = overlay(given, parse_word(word))
    given |= {key: value for key, value in fixed.items() if value is not None}
    return validated(kind, given, str(file) if file else "")


def validated(kind: type[C], given: Mapping[str, Any], where: str = "") -> C:
    """The typed settings, every leaf's options checked; `where` they came from is named in a fault."""
    try:
        config = kind(**given)
    except ValidationError as error:
        raise MeritError(explain(kind, error, where)) from error
    for section, folder in LEAVES.items():
        if hasattr(config, section):
            check_leaf(section, folder, getattr(config, section))
    return config


def check_leaf(section: str, folder: str, given: Section) -> None:
    """Raises MeritError where a section names no leaf, or one that refuses the section's other keys."""
    name = given.get("name")
    if not isinstance(name, str) or (not name and section != "verifier"):  # the family of tasks names a verifier too
        known = ", ".join(leaf.names(folder))
        raise MeritError(f"{section}.name = {name!r}: the name of a leaf is expected (known: {known})")
    if name:
        leaf.options(folder, given)


def defaults(kind: type[Run]) -> dict[str, Any]:
    return kind().model_dump(mode="json")


def read_yaml(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise MeritError(f"--config: there is no file {str(file)!r}")
    try:
        read = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise MeritError(f"--config {file}: no valid YAML: {error}") from error
    if not isinstance(read, dict):
        raise MeritError(f"--config {file}: a mapping of keys to values is expected, this is a {type(read).__name__}")
    return read


def parse_word(word: str) -> dict[str, Any]:
    """`a.b=1` as {"a": {"b": 1}}; the value is read as YAML, but @FILE, which YAML would have quoted, as it is."""
    key, equals, value = word.partition("=")
    if not equals or not key or not all(key.split(".")):
        raise MeritError(
            f"{word!r} is neither a workflow nor an override of the form key=value, as in rounds=3 or credit.name=uniform"
        )
    try:
        nested: Any = value if value[:1] in ("", "@") else yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise MeritError(f"{word}: the value is no valid YAML: {error}") from error
    for part in reversed(key.split(".")):
        nested = {part: nested}
    return nested


def overlay(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` laid over `below`. A section that names another leaf starts anew: the old leaf's options go."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        if isinstance(old, dict) and isinstance(value, Mapping):
            renamed = "name" in value and value["name"] != old.get("name")
            result[key] = overlay({} if renamed else old, value)
        else:
            result[key] = value
    return result


def explain(kind: type[Run], error: ValidationError, source: str) -> str:
    """Each fault with its place, and for an unknown key the nearest known one."""
    lines = []
    for fault in error.errors():
        path = [str(part) for part in fault["loc"]]
        where = f" (in {source} or on the command line)" if source else ""
        if fault["type"] in leaf.UNKNOWN:
            known = leaf.known_keys(kind, path[:-1])
            lines.append(leaf.unknown(".".join(path[:-1]) or "configuration", path[-1], known) + where)
        else:
            lines.append(f"{'.'.join(path)} = {fault['input']!r}: {fault['msg']}{where}")
    return "\n".join(lines)


def dump(config: Run) -> str:
    """The configuration as YAML that `--config` reads back."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
