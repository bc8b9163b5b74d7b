"""What a configuration leaves to its leaves: prompts, verifier, branches, the credit section. Checked before anything runs.

Pure but for the files that settings name. A fault is a MeritError that says which setting, and what would do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

from apps import leaf
from apps.inference import four_bit, rationale, rehearsal
from apps.records import MeritError
from apps.training import policy
from workflows import model
from workflows.config import PostTrain, Section

BRANCHES = {"solve": 3, "check": 4, "revise": 3, "report": 1}  # of a tree, by duty


def topology(config: PostTrain) -> ModuleType:
    """The topology, and all that it declares to use."""
    found = leaf.find("topologies", config.topology["name"])
    for used in getattr(found, "USES", ()):
        leaf.find(*used)  # a typo in it is answered with the nearest name
    return found


def verifier(config: PostTrain) -> Section:
    """The verifier's section: the configured one, or the task family's own."""
    return config.verifier if config.verifier["name"] else own_verifier(config)


def own_verifier(config: PostTrain) -> Section:
    """The section of the verifier that the task family brings."""
    family = leaf.find("tasks", config.tasks["name"])
    options = leaf.options("tasks", config.tasks)
    return {"name": getattr(options, "verifier", "") or family.VERIFIER}


def prompts(config: PostTrain, team: ModuleType) -> dict[str, str]:
    """Every role's template; a role without one is an error, and so is a prompt for no role."""
    name, roles = config.topology["name"], list(team.ROLES)
    given = {role: _text(role, template) for role, template in config.team.prompts.items()}
    for role in given:
        if role not in roles:
            raise MeritError(leaf.unknown(f"team.prompts: role of {name}", role, roles))
    found = {**getattr(team, "PROMPTS", {}), **given}
    if missing := [role for role in roles if not found.get(role)]:
        raise MeritError(f"the role {missing[0]!r} has no prompt; set team.prompts.{missing[0]} to a template or @FILE")
    rehearsal.check(name, {key: value for key, value in config.topology.items() if key != "name"}, found)
    return {role: found[role] for role in roles}


def sharing(config: PostTrain, roles: Sequence[str]) -> dict[str, str]:
    """Role -> whose policy it speaks with, for the roles that have none of their own."""
    share = {role: owner for role, owner in config.team.share.items() if role != owner}
    for role in (*share, *share.values()):
        if role not in roles:
            raise MeritError(leaf.unknown("team.share: role", role, list(roles)))
    for role, owner in share.items():
        if owner in share:
            raise MeritError(
                f"team.share: {role} shares the policy of {owner}, which shares that of {share[owner]}; "
                f"name who has it, {role}: {share[owner] if share[owner] != role else 'and just one of the two'}"
            )
        if role in config.team.models:
            raise MeritError(
                f"team.models.{role}: {role} speaks with the policy of {owner} (team.share); give the model to {owner}"
            )
    return share


def models(config: PostTrain, roles: Sequence[str]) -> dict[str, str]:
    """Role -> digest of the base model that is its own, for the roles that have another than the run's."""
    for role in config.team.models:
        if role not in roles:
            raise MeritError(leaf.unknown("team.models: role", role, list(roles)))
    if config.team.models and config.engine["name"] == "scripted":
        raise MeritError("team.models: scripted agents have no model; leave team.models out, or take a real engine")
    own = {role: model.identity(given, f"team.models.{role}") for role, given in config.team.models.items()}
    return {role: digest for role, digest in own.items() if digest != model.identity(config.model)}


def branching(config: PostTrain, team: ModuleType) -> Mapping[str, int]:
    """Branches by role, by default those of its duty; a tree without any has nothing to compare."""
    roles = list(team.ROLES)
    found = config.rollout.branching or {role: BRANCHES[duty] for role, duty in team.DUTIES.items()}
    for role in found:
        if role not in roles:
            raise MeritError(leaf.unknown("rollout.branching: role", role, roles))
    if max(found.values(), default=1) < 2:
        raise MeritError(
            f"rollout.plan={config.rollout.plan} wants rollout.branching, as in rollout.branching.{roles[0]}=3"
        )
    return found


def check_judge(config: PostTrain) -> None:
    """MeritError where the best candidate of a turn could not be told while it is played."""
    name = verifier(config)["name"]
    if config.rollout.plan == "best" and hasattr(leaf.find("reward", name), "asked"):
        raise MeritError(
            f"rollout.plan=best asks the verifier after each turn, and verifier.name={name} asks a model in its turn; take "
            "rollout.plan=tree, or a verifier without a model"
        )


def check_hint(config: PostTrain) -> None:
    """MeritError where second tries could not be learnt from: nobody drew these tokens under these prompts."""
    rationale.check(config.rollout.hint)
    if config.rollout.plan != "independent":
        raise MeritError(
            f"rollout.hint goes with rollout.plan=independent; given {config.rollout.plan}, whose groups it would upset"
        )
    needs = leaf.find("training/objectives", config.objective["name"]).NEEDS
    if config.engine["name"] != "scripted" and "old" in needs:
        raise MeritError(
            f"rollout.hint with objective.name={config.objective['name']}: it compares the policy with who sampled, and a second "
            "try was sampled with the answer in sight; take objective.name=sft, as the stages star and rest do"
        )


def check_overlap(config: PostTrain) -> None:
    """MeritError where plays that are one policy behind would be taken for the trained policy's own."""
    from apps.training.objectives import policy_gradient

    name = config.objective["name"]
    objective, options = leaf.find("training/objectives", name), leaf.options("training/objectives", config.objective)
    needs = objective.needs(options) if hasattr(objective, "needs") else objective.NEEDS
    if isinstance(options, policy_gradient.Reference) and "old" not in needs:
        raise MeritError(
            f"rollout.overlap=1 with objective.name={name}: a round's plays are one policy behind the one that is trained, and "
            "nothing in it corrects that; set objective.truncation=2, take an objective with a ratio (grpo, ppo, cispo, …), or "
            "rollout.overlap=0"
        )


def check_training(config: PostTrain) -> None:
    """MeritError for layers that one of the models has not, and for what training all weights cannot do."""
    lora, models = config.training.lora, {"model": config.model}
    wanted, read = lora.quantise if lora else None, config.engine.get("quantise")
    if wanted or read:
        four_bit.check()
    if wanted != read:
        raise MeritError(
            f"training.lora.quantise={wanted} and engine.quantise={read}: a policy is trained and speaks over the same base model; "
            "set both or neither"
        )
    if config.team.models and (read_by_run := token_wants(config)):
        raise MeritError(
            f"advantage.name={config.advantage['name']} asks the run's own base model about tokens ({', '.join(sorted(read_by_run))}), "
            "and agents with team.models may have others; take another advantage, or one base model for all"
        )
    models |= {f"team.models.{role}": given for role, given in config.team.models.items()}
    for given in models.values() if lora is not None else ():
        policy.check_targets(lora.targets, model.layers(given))
    module, tuned = (
        leaf.find("training/objectives", config.objective["name"]),
        leaf.options("training/objectives", config.objective),
    )
    needs = module.needs(tuned) if hasattr(module, "needs") else module.NEEDS
    if {"scores", "values"} & needs:
        raise MeritError(
            f"objective.name={config.objective['name']} teaches a scalar head, and agents have to speak; for PPO set "
            "objective.name=ppo advantage.name=gae, whose value model is trained by itself; a reward model is made by the "
            "workflow, or the stage, reward_model"
        )
    if lora is None and "reference" in needs:
        raise MeritError(
            f"objective.name={config.objective['name']} with these settings compares with a frozen reference, which is the base "
            "model under a LoRA adapter, and training.lora=null trains all weights; set objective.beta=0 where it has one, take "
            "an objective without a reference (docs/training.md lists them), or train adapters"
        )


def token_wants(config: PostTrain) -> frozenset[str]:
    """What the advantage wants to know of tokens: `values` of a value model, log-probabilities of the `reference`."""
    module = leaf.find("training/advantages", config.advantage["name"])
    wants = module.wants(leaf.options("training/advantages", config.advantage)) if hasattr(module, "wants") else ()
    if "values" in wants and config.value_model.training.lora is None:
        raise MeritError(
            f"advantage.name={config.advantage['name']} wants a value model, which is an adapter that goes on from round "
            "to round; value_model.training.lora=null trains none"
        )
    if wants and config.team.models:
        raise MeritError(
            f"advantage.name={config.advantage['name']} with these settings has turns read by the run's own model, and "
            f"team.models gives {', '.join(config.team.models)} others, whose tokens it does not know; leave one of them out"
        )
    return frozenset(wants)


def wants_tree(config: PostTrain) -> bool:
    """Whether the credit method reads a tree of plays."""
    return getattr(leaf.find("credit", config.credit["name"]), "TREE", False)


def asks_model(section: Section) -> bool:
    """Whether a verifier asks a model."""
    return hasattr(leaf.find("reward", section["name"]), "asked")


def judged_by_model(config: PostTrain, trains: bool, trained: bool) -> Section:
    """The section of a verifier that asks a model, with digests of what it asks; `trained`: by a node of this run."""
    check_adapter("verifier", config.verifier, trains, trained)
    return model.keyed(config.verifier, "verifier")


def credit(config: PostTrain, team: ModuleType, trains: bool, trained: bool = False) -> Section:
    """The credit section with digests of the models that it asks, once it is clear that all of it can be had.

    `trained`: a reward model is made in this very run, so that none has to be given.
    """
    section = config.credit
    if wants_tree(config) and config.rollout.plan != "tree":
        raise MeritError(
            f"credit.name={section['name']} reads a tree of plays, and rollout.plan={config.rollout.plan}; set "
            "rollout.plan=tree, or take a method that replays (credit.name=counterfactual)"
        )
    for option in ("protocols", "unions"):
        for role in section.get(option, {}):
            if role not in team.ROLES:
                raise MeritError(leaf.unknown(f"credit.{option}: role", role, list(team.ROLES)))
    check_adapter("credit", section, trains, trained)
    return model.keyed(section)


def check_adapter(setting: str, section: Section, trains: bool, trained: bool = False) -> None:
    """MeritError where the section `setting` wants a trained adapter and is given none, or no such thing."""
    given, module = section.get("adapter"), leaf.find(model.ASKING[setting], section["name"])
    maker = module.trained_by(leaf.options(model.ASKING[setting], section)) if hasattr(module, "trained_by") else ""
    if maker and not given and not trained:
        raise MeritError(
            f"{setting}.name={section['name']} wants {setting}.adapter, the folder of a trained reward model; make one with "
            f"`python workflows/run.py {maker}`, then give {setting}.adapter=runs/{maker}/adapter"
        )
    if not given:
        return
    folder = Path(given).expanduser()
    there = (folder / policy.ADAPTER).is_file() or any(folder.glob(f"*/{policy.ADAPTER}"))  # one, or an ensemble
    if folder.exists() and not there:
        raise MeritError(
            f"{setting}.adapter={given}: no adapter in PEFT format (there is no {policy.ADAPTER} in it); "
            "give the folder of one, such as runs/NAME/adapters/critic"
        )
    if not section.get("model") and not trains:
        raise MeritError(
            f"{setting}.adapter sits on a base model, and scripted agents have none; give {setting}.model too"
        )


def _text(role: str, template: str) -> str:
    """A template, or the contents of the file that `@FILE` names."""
    if not template.startswith("@"):
        return template
    file = Path(template[1:])
    if not file.is_file():
        raise MeritError(f"team.prompts.{role}: there is no file {str(file)!r}")
    return file.read_text(encoding="utf-8").rstrip("\n")
