"""A team's policies on disk: a folder for each that was trained (an adapter in PEFT format, or a whole model), and `policies.json`.

`policies.json` has a row for each agent: the `digest` of its weights ("base": untrained), whose policy it `shares` ("": its own)
and the digest of its own `base` model ("": the run's). Where base models lie is no part of a team: readers are told.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apps.platform import nearby
from apps.records import Policy

FILE = "policies.json"
WHOLE = "config.json"  # what a folder with a whole model has
OWN = ("manifest.json", "facts.json")  # a stage's, not a policy's
TRAINERS = ("optimiser.safetensors",)  # what speaking takes no part of, twice as large as the weights


@dataclass(frozen=True, slots=True)
class Row:
    """An agent in `policies.json`."""

    digest: str = "base"
    shares: str = ""
    base: str = ""


def read(folder: Path, places: Mapping[str, str] | None = None, staging: str = "") -> dict[str, Policy]:
    """Who speaks for each agent. `places` says where the base model of a digest lies.

    With `staging`, a folder on this node, the weights of agents are copied there first, and are read from there.
    """
    return {agent: _policy(agent, row, folder, places or {}, staging) for agent, row in rows(folder).items()}


def rows(folder: Path) -> dict[str, Row]:
    return {agent: Row(**given) for agent, given in json.loads((folder / FILE).read_text()).items()}


def _policy(agent: str, row: Row, folder: Path, places: Mapping[str, str], staging: str) -> Policy:
    base, place = places.get(row.base, row.base), folder / (row.shares or agent)
    if row.digest == "base":
        return Policy(agent, model=base, base=base)
    if staging:
        place = nearby.folder(place, Path(staging), TRAINERS)
    if (place / WHOLE).is_file():
        return Policy(agent, row.digest, model=str(place), base=base)
    return Policy(agent, row.digest, str(place), model=base, base=base)


def write(
    folder: Path, digests: Mapping[str, str], sources: Mapping[str, Path], models: Mapping[str, str] | None = None
) -> None:
    """Puts together a team of which every agent has a policy of its own; `models`: digests of other base models than the run's."""
    _write(
        folder, {agent: Row(digest, base=(models or {}).get(agent, "")) for agent, digest in digests.items()}, sources
    )


def _write(folder: Path, team: Mapping[str, Row], sources: Mapping[str, Path]) -> None:
    """`sources` are the policies' folders, by agent. Files are linked, not copied, where that works."""
    for agent, source in sources.items():
        (folder / agent).mkdir()
        for file in sorted(source.iterdir()):
            if file.is_file() and file.name not in OWN:
                _link(file, folder / agent / file.name)
    described = {agent: dataclasses.asdict(row) for agent, row in team.items()}
    (folder / FILE).write_text(json.dumps(described, indent=2) + "\n")


def base(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """The stage `base`: every agent is its base model alone. Options: `agents`; `share` and `models` where agents differ."""
    share, models = options.get("share", {}), options.get("models", {})
    team = {
        agent: Row(shares=share.get(agent, ""), base=models.get(share.get(agent, agent), ""))
        for agent in options["agents"]
    }
    _write(out, team, {})
    return {"agents": list(options["agents"])}


def gather(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """The stage `gather`: the candidate team, made of the newly trained policies and, for the others, of `policies`."""
    team, sources = rows(inputs["policies"][0]), _sources(inputs["policies"][0])
    for folder in inputs["train"]:
        facts = json.loads((folder / "facts.json").read_text())
        sources[facts["agent"]] = folder
        for agent, row in team.items():
            if (row.shares or agent) == facts["agent"]:
                team[agent] = dataclasses.replace(row, digest=facts["digest"])
    _write(out, team, sources)
    return {"digests": {agent: row.digest for agent, row in team.items()}}


def cast(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """The stage `cast`: the team of `policies`, but those in the option `guests` have their policies of the team `past`.

    Agents that share a policy are guests together: nobody speaks with half of a pair.
    """
    team, sources = rows(inputs["policies"][0]), _sources(inputs["policies"][0])
    past, there = rows(inputs["past"][0]), _sources(inputs["past"][0])
    for agent in options["guests"]:
        team[agent] = past[agent]
        sources.pop(agent, None)
        sources |= {agent: there[agent]} if agent in there else {}
    _write(out, team, sources)
    return {"digests": {agent: row.digest for agent, row in team.items()}}


def adopt(out: Path, chosen: Path) -> None:
    """Makes `out` the same team as `chosen`."""
    _write(out, rows(chosen), _sources(chosen))


def _sources(folder: Path) -> dict[str, Path]:
    """The folders of a team's trained policies, by the agent that they belong to."""
    return {agent: folder / agent for agent in rows(folder) if (folder / agent).is_dir()}


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copy(source, target)
