"""What went into a report, round by round: which artifacts belong together is read from their manifests.

Only reading; what is made of it is in summary.py and health.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from apps import artifacts, policies
from apps.credit import results
from apps.inference import traces
from apps.records import Credit, Graded, MeritError
from apps.reward import verdicts

Inputs = Mapping[str, Sequence[Path]]


@dataclass(frozen=True, slots=True)
class Round:
    """One round of training. Folders that were not given are absent from the lists."""

    number: int  # 1, 2, …
    train: dict[str, Path]  # by agent
    batch: tuple[Path, ...] = ()
    rollout: tuple[Path, ...] = ()  # shards; `grade` and `assign` stand in the same order
    grade: tuple[Path, ...] = ()
    assign: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Played:
    """Traces with their verdicts and their credit; `credit` is empty where none was assigned."""

    graded: list[Graded] = field(default_factory=list)
    credit: list[Credit] = field(default_factory=list)


def facts(folder: Path) -> dict[str, Any]:
    """What a stage said of its work."""
    return json.loads((folder / "facts.json").read_text())


def rounds(inputs: Inputs) -> list[Round]:
    """The rounds in order. A round has a batch of its own, which names the shards that it was made of; who was trained on it was
    trained in that round."""
    given = {name: _by_key(inputs.get(name, ())) for name in ("batch", "rollout", "grade", "assign")}
    by_round: dict[tuple[str, ...], dict[str, Path]] = {}
    for folder in inputs.get("train", ()):
        made_of = tuple(artifacts.manifest(folder)["record"]["inputs"].get("batch", ()))
        by_round.setdefault(made_of, {})[facts(folder)["agent"]] = folder
    found = []
    for number, train in enumerate(by_round.values(), 1):
        batch = _made_from(train.values(), "batch", given["batch"])
        shards = {name: _made_from(batch, name, given[name]) for name in ("rollout", "grade", "assign")}
        found.append(Round(number, train, batch, **shards))
    return found


def teams(r: Round) -> int:
    """How many teams played a round's tasks: more than one where guests from earlier rounds took part."""
    return len({tuple(artifacts.manifest(f)["record"]["inputs"].get("policies", ())) for f in r.rollout})


def off_policy(r: Round, digests: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Who was trained in a round from other weights than those that spoke in it. `digests`: key of a team -> agent -> weights."""

    def weights(folders: Iterable[Path], agent: str) -> set[str | None]:
        return {digests.get(key, {}).get(agent) for folder in folders for key in _team(folder)}

    trained = {agent: weights([folder], agent) for agent, folder in r.train.items()}
    return [agent for agent, origin in trained.items() if origin and origin != weights(r.batch, agent)]


def digests(folders: Sequence[Path]) -> dict[str, dict[str, str]]:
    """Key of a team -> agent -> digest of its weights, for the teams among some folders."""
    teams = [folder for folder in folders if (folder / policies.FILE).is_file()]
    return {folder.name: {agent: row.digest for agent, row in policies.rows(folder).items()} for folder in teams}


def _team(folder: Path) -> list[str]:
    """The key of the team that an artifact was made from, if any."""
    return list(artifacts.manifest(folder)["record"]["inputs"].get("policies", ()))


def played(rollout: Sequence[Path], grade: Sequence[Path], assign: Sequence[Path]) -> Played:
    """Joins shards given in the same order."""
    together = Played()
    for shard, judged in zip(rollout, grade, strict=True):
        together.graded.extend(verdicts.read(judged, traces.read(shard / traces.FILE)))
    for folder in assign:
        together.credit.extend(results.read(folder))
    ids, named = [g.trace.id for g in together.graded], [c.trace for c in together.credit]
    if named and ids != named:
        raise MeritError(
            f"report: the credit of {len(named)} traces is not that of the {len(ids)} traces given with it"
        )
    return together


def _by_key(folders: Sequence[Path]) -> dict[str, Path]:
    return {artifacts.manifest(folder)["key"]: folder for folder in folders}


def _made_from(folders, name: str, given: Mapping[str, Path]) -> tuple[Path, ...]:
    """The folders among `given` that `folders` were made from, each once, in order."""
    keys = (key for folder in folders for key in artifacts.manifest(folder)["record"]["inputs"].get(name, ()))
    return tuple(given[key] for key in dict.fromkeys(keys) if key in given)
