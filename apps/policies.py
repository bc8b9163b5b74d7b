"""A team's policies on disk: a folder with an adapter in PEFT format for each trained agent, and `policies.json`."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from apps.records import Policy

FILE = "policies.json"


def read(folder: Path) -> dict[str, Policy]:
    """Who speaks for each agent."""
    rows = json.loads((folder / FILE).read_text())
    return {
        agent: Policy(agent, digest, str(folder / agent) if digest != "base" else "") for agent, digest in rows.items()
    }


def write(folder: Path, digests: Mapping[str, str], sources: Mapping[str, Path]) -> None:
    """Puts together a team: `sources` are the adapters' folders, by agent. Files are linked, not copied, where that works."""
    for agent, source in sources.items():
        (folder / agent).mkdir()
        for file in sorted(source.iterdir()):
            if file.is_file() and file.name not in ("manifest.json", "facts.json"):
                _link(file, folder / agent / file.name)
    (folder / FILE).write_text(json.dumps(dict(digests), indent=2) + "\n")


def base(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """The stage `base`: every agent is the base model alone."""
    write(out, {agent: "base" for agent in options["agents"]}, {})
    return {"agents": list(options["agents"])}


def gather(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """The stage `gather`: the candidate team, made of the newly trained adapters and, for the others, of `policies`."""
    digests = {agent: policy.digest for agent, policy in read(inputs["policies"][0]).items()}
    sources = {agent: inputs["policies"][0] / agent for agent, digest in digests.items() if digest != "base"}
    for folder in inputs["train"]:
        facts = json.loads((folder / "facts.json").read_text())
        digests[facts["agent"]], sources[facts["agent"]] = facts["digest"], folder
    write(out, digests, sources)
    return {"digests": digests}


def adopt(out: Path, chosen: Path) -> None:
    """Makes `out` the same team as `chosen`."""
    digests = {agent: policy.digest for agent, policy in read(chosen).items()}
    write(out, digests, {agent: chosen / agent for agent, digest in digests.items() if digest != "base"})


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copy(source, target)
