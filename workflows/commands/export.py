"""Writes a finished run's trained policies as folders that plain transformers and peft load, each with a model card. Not a workflow.

A folder is made aside and renamed: it is whole or not there.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from apps import leaf
from apps.records import MeritError
from apps.report import model_card
from apps.training import export, policy
from workflows import config as configuration
from workflows import model, resolve
from workflows.config import PostTrain
from workflows.driver.run_folder import POLICIES, SUMMARY

CARD = "README.md"
DTYPES = ("float32", "bfloat16")


def write(
    run: Path, out: Path, agent: str = "", merge: bool = False, base: str = "", dtype: str = "float32"
) -> list[Path]:
    """One agent's policy as `out`, or each trained one's as `out`/AGENT; gives the folders. `base`: where its base model is now."""
    settings, summary = settings_of(run), json.loads((run / SUMMARY).read_text(encoding="utf-8"))
    found = trained(run)
    if dtype not in DTYPES:
        raise MeritError(leaf.unknown("--dtype", dtype, list(DTYPES)))
    if agent and agent not in found:
        raise MeritError(_untrained(run, agent, list(found), settings))
    if not found:
        raise MeritError(f"{run.name}: no agent of this run was trained and let in, so there is nothing to export")
    out = out.resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise MeritError(f"--out {out}: it is there already; give a folder that is not, or an empty one")
    aside = out.with_name(out.name + ".part")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        for name in [agent] if agent else found:
            place = aside if agent else aside / name
            place.mkdir(parents=True)
            _write_one(place, name, found[name], run, settings, summary, merge, base, dtype)
        if out.is_dir():
            out.rmdir()
        os.replace(aside, out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return [out] if agent else [out / name for name in found]


def trained(run: Path) -> dict[str, Path]:
    """Agent -> the folder of its policy in the run's folder."""
    return {place.name: place for kind in POLICIES for place in sorted((run / kind).glob("*")) if place.is_dir()}


def settings_of(run: Path) -> PostTrain:
    """A run's own settings; MeritError where it trained no team."""
    read = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    if "topology" not in read or "objective" not in read:
        raise MeritError(f"{run.name}: no team was trained by this run; name one of post_train")
    return configuration.validated(PostTrain, read, str(run / "config.yaml"))


def _write_one(
    out: Path,
    agent: str,
    source: Path,
    run: Path,
    settings: PostTrain,
    summary: Mapping[str, Any],
    merge: bool,
    base: str,
    dtype: str,
) -> None:
    whole = not (source / policy.ADAPTER).is_file()
    kind = "whole" if whole else "merged" if merge else "adapter"
    found = Base(source, _named(settings, agent), "") if whole else base_of(run, agent, source, settings, base)
    if kind == "whole":
        export.whole(source, out)
    elif kind == "merged":
        export.merged(source, found.folder, out, dtype)
    else:
        export.adapter(source, found.folder, out)
    facts = {"kind": kind, "dtype": dtype, "base": found.name, "licence": licence(found.folder), "digest": found.digest}
    facts |= _of_team(settings, agent)
    card = model_card.text(facts, settings.model_dump(mode="json"), summary)
    (out / CARD).write_text(card, encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Base:
    """The model that an adapter is for."""

    folder: Path
    name: str  # for the card
    digest: str  # of its files; "" where the adapter does not say which it wants


def base_of(run: Path, agent: str, source: Path, settings: PostTrain, given: str = "") -> Base:
    """`given`, or the model that a stage of the run put in its base's place, or the one that the agent began with."""
    made, own = run / "model", settings.team.models.get(settings.team.share.get(agent, agent))
    name, wanted = _named(settings, agent), _made_for(source)
    if not own and (made / "config.json").is_file():
        folder = model.locate(given, "--base") if given else made
        return Base(folder, f"{settings.name}/model", model.identity(str(folder)))
    path, setting = given or own or settings.model, "--base" if given else "model"
    if not given and path != "embedded" and not Path(path).expanduser().is_absolute():
        path = str(Path(json.loads((run / "environment.json").read_text(encoding="utf-8"))["folder"]) / path)
    folder = model.locate(path, setting)
    if wanted and wanted != (there := model.identity(str(folder))):
        raise MeritError(
            f"{agent}: its adapter was trained on a base model with the digest {wanted[:16]}, and {folder} has {there[:16]}: another "
            "model, or files that were changed since; give the right one by --base"
        )
    return Base(folder, name, wanted)


def licence(model_folder: Path) -> str:
    """What the front matter of a model's card names; "" where it does not."""
    card = model_folder / CARD
    parts = card.read_text(encoding="utf-8").split("---\n", 2) if card.is_file() else []
    try:
        front = yaml.safe_load(parts[1]) if len(parts) == 3 and not parts[0].strip() else {}
    except yaml.YAMLError:
        return ""
    return str(front.get("license", "")) if isinstance(front, dict) else ""


def _of_team(settings: PostTrain, agent: str) -> dict[str, Any]:
    team = resolve.topology(settings)
    shared = {role for role, owner in settings.team.share.items() if owner == settings.team.share.get(agent, agent)}
    shared |= {settings.team.share.get(agent, agent)} if shared else set()
    return {
        "agent": agent,
        "duty": team.DUTIES.get(agent, ""),
        "team": list(team.ROLES),
        "prompt": resolve.prompts(settings, team)[agent],
        "shared": [role for role in team.ROLES if role in shared and role != agent],
    }


def _named(settings: PostTrain, agent: str) -> str:
    """The name of an agent's base model: that of its folder."""
    return Path(settings.team.models.get(settings.team.share.get(agent, agent), settings.model)).name


def _made_for(source: Path) -> str:
    file = source / policy.BASE
    return json.loads(file.read_text(encoding="utf-8"))["digest"] if file.is_file() else ""


def _untrained(run: Path, agent: str, known: list[str], settings: PostTrain) -> str:
    if agent in resolve.topology(settings).ROLES:
        return f"--agent {agent}: in {run.name} it is its base model still: none of its adapters was let in (trained: {', '.join(known)})"
    return leaf.unknown("--agent", agent, list(resolve.topology(settings).ROLES))
