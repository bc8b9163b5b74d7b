"""How far each credit method can be trusted: games with known values, planted faults, and the model's own team.

Ends in one page, a table and a summary. Every method sees the same traces, and what two of them ask is played once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from apps import leaf, records, stages
from apps.fidelity import faults
from apps.records import MeritError
from workflows.config import PostTrain, Run, Section, check_leaf, validated
from workflows.plan import Node, Plan
from workflows.steps import Steps

__all__ = ["Config", "dag"]

FILE = Path(__file__).parent / "faults.yaml"
TRUTH = "apps.fidelity.truth"
METHODS: dict[str, Section] = {
    "uniform": {"name": "uniform"},
    "local": {"name": "local"},
    "first_error_walk": {"name": "first_error"},
    "first_error": {"name": "first_error", "by": "replay"},
    "counterfactual": {"name": "counterfactual"},
    "monte_carlo": {"name": "monte_carlo"},
    "leave_one_out": {"name": "leave_one_out"},
    "banzhaf": {"name": "banzhaf"},
    "owen": {"name": "owen"},
    "shapley": {"name": "shapley"},
    "shapley_base": {"name": "shapley", "protocol": "base"},
    "reward_and_blame": {"name": "reward_and_blame"},
    "first_error_unmended": {"name": "first_error", "by": "replay", "mended": 1.0},
    "reward_and_blame_unmended": {"name": "reward_and_blame", "mended": 1.0},
}
ABLATED = ("first_error", "shapley_base", "reward_and_blame")  # lean on a base model that plays without the fault
REPEATS = (1, 2, 4, 8, 16)  # of Shapley in the team's part: which of them reach the truth
STAND_INS = ("bypass", "null", "base", "cached")


class Team(records.Options):
    """The part that the model's own team plays."""

    tasks: int = Field(6, ge=1, description="held-out tasks")
    samples: int = Field(4, ge=2, description="plays of each")
    truth: int = Field(64, ge=2, description="repeats behind the truths")


class Config(Run):
    """The configuration of `fidelity`."""

    parts: tuple[Literal["games", "faults", "team"], ...] = Field(
        ("games", "faults", "team"), description="what is run"
    )
    methods: dict[str, Section] = Field(METHODS, description="name in the tables: a credit method and its options")
    faults: str = Field("", description="a file of planted faults; default: workflows/faults.yaml")
    truth: int = Field(64, ge=2, description="continuations of each prefix that say what a turn was worth")
    games: dict[str, Any] = Field({}, description="options of the games' part: budgets, seeds, teams, …")
    model: str = Field("embedded", description="a local Hugging Face folder, or the model that comes with Merit")
    adapters: str = Field("", description="a folder with an adapter for each agent (runs/NAME/adapters); default: none")
    tasks: Section = Field({"name": "arithmetic", "levels": [4, 5]}, description="a family of tasks")
    topology: Section = Field({"name": "solve_critique_revise"}, description="how the model's team works together")
    team: Team = Team()


def dag(config: Config, plan: Plan) -> dict[str, Node]:
    """Adds the chosen parts, and the page over them."""
    for name, section in config.methods.items():
        check_leaf(f"methods.{name}", "credit", section)
        if getattr(leaf.find("credit", section["name"]), "TREE", False):
            raise MeritError(
                f"methods.{name}: {section['name']} reads a tree of plays, and here teams play independently; leave it out"
            )
    found: dict[str, list[Node]] = {}
    if "games" in config.parts:
        found["contest"] = [plan.add(stages.CONTEST, games=_games(config))]
    if "faults" in config.parts:
        found["planted"] = _planted(config, plan, config.methods)
        if ablated := {name: config.methods[name] for name in ABLATED if name in config.methods}:
            found["faulty_base"] = _planted(config, plan, ablated, faulty_base=True)
    if "team" in config.parts:
        found["compared"] = [_team(config, plan)]
    settings = {k: v for k, v in config.model_dump(mode="json").items() if k not in ("store", "runs", "name", "pack")}
    report = plan.add(
        stages.FIDELITY, found, name=config.name, methods=config.methods, ablated=ABLATED, config=settings
    )
    return {"report": report}


def _games(config: Config) -> dict[str, Any]:
    from pydantic import ValidationError

    from apps.fidelity import contest

    try:
        return contest.Options(**config.games).model_dump(mode="json")
    except ValidationError as error:
        raise MeritError(leaf.explain(error, "games", contest.Options)) from error


def _planted(config: Config, plan: Plan, methods: dict[str, Section], faulty_base: bool = False) -> list[Node]:
    """A task for each case and seed; with a faulty base for those that plant something, with the first seed alone."""
    file = faults.read(config.faults or FILE)
    verifier = {"name": "exact_number"}
    most = max(case.tasks for case in file.cases)
    family = {"name": "arithmetic", "test": max(200, most)}
    tasks = plan.add(stages.TASKS, split="test", tasks=family, verifier=verifier, data="")
    return [
        plan.add(
            stages.PLANTED,
            {"tasks": tasks},
            case=case.model_dump(mode="json", exclude={"seeds"}),
            topology=case.topology,
            usual=file.usual.model_dump(mode="json"),
            seed=f"{config.seed}/{seed}",
            methods=methods,
            faulty_base=faulty_base,
            truth=config.truth,
            verifier=verifier,
        )
        for case in file.cases
        if case.faults or not faulty_base
        for seed in (case.seeds[:1] if faulty_base else case.seeds)
    ]


def _team(config: Config, plan: Plan) -> Node:
    """Plays of the model's team, one record of replays for all methods, another one for the truths."""
    settings = validated(
        PostTrain,
        {
            **{key: getattr(config, key) for key in ("seed", "model", "tasks", "topology")},
            "credit": {"name": "uniform"},
            "rollout": {"plan": "independent", "samples": config.team.samples},
            "evaluation": {"shown_tasks": config.team.tasks},
        },
    )
    steps = Steps(settings, plan)
    tasks = steps.tasks("test")
    team = steps.adopted(config.adapters, "adapters") if config.adapters else steps.untrained()
    played, judged, *_ = steps.show(team)
    inputs = {"tasks": tasks, "rollout": played, "grade": judged}
    speak = {key: value for key, value in played.options.items() if key not in ("plan", "take")}
    methods = config.methods | _variants()
    truths = {"prefix": {"name": TRUTH, "repeats": config.team.truth}}
    truths["shapley"] = {"name": "shapley", "repeats": config.team.truth}

    def replayed(sections: dict[str, Section], luck: str) -> Node:
        options = {**speak, "verifier": steps.verifier, "seed": f"{speak['seed']}/{luck}"}
        return plan.add(stages.REPLAY, {**inputs, "policies": team}, methods=list(sections.values()), **options)

    return plan.add(
        stages.COMPARED,
        {**inputs, "replay": replayed(methods, "methods"), "truth": replayed(truths, "truth")},
        topology=config.topology,
        methods=methods,
        truths=truths,
        stand_ins=[f"shapley_{protocol}_8" for protocol in STAND_INS],
        watched=list(config.methods),
        opposed=["shapley_16", "counterfactual", "leave_one_out"],
    )


def _variants() -> dict[str, Section]:
    """Shapley at several repeat counts, and with each stand-in."""
    repeats = {f"shapley_{n}": {"name": "shapley", "repeats": n} for n in REPEATS}
    stand_ins = {f"shapley_{p}_8": {"name": "shapley", "repeats": 8, "protocol": p} for p in STAND_INS}
    return {**repeats, **stand_ins, "judge": {"name": "judge"}}
