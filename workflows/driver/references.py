"""Which artifacts of a store the runs refer to, so that a clean-up leaves them (garbage.py).

Each run keeps a list of all that its plan is made of, whether it is finished or not, and the store a list of the runs that use
it, wherever their folders are. A run adds itself under a lock that a clean-up has alone: either the clean-up sees it, or it
looks into the store only when the clean-up is over.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from apps import records, stages
from workflows import store
from workflows.driver import run_folder
from workflows.plan import Node

PLAN, INDEX = (
    "plan.json",
    "artifacts.json",
)  # in a run's folder: what it is made of; the same of a finished run, by run_folder
USERS = "used_by"  # in the store: a file for each run, with the path of its folder


def keep(root: Path, folder: Path, nodes: Iterable[Node]) -> None:
    """Notes that the run in `folder` is made of these tasks; waits while a clean-up is at work."""
    made_of: dict[str, list[str]] = {}
    for node in nodes:
        made_of.setdefault(node.stage.name, []).append(node.key)
        if node.lineage:
            made_of.setdefault(stages.PARTIAL, []).append(node.lineage)
    place = str(folder.absolute())
    with locked(root, fcntl.LOCK_SH):
        run_folder.write(folder / PLAN, json.dumps(made_of))
        run_folder.write(root / USERS / records.digest(place), place)


def users(root: Path) -> list[Path]:
    """The folders of the runs that use the store; those that were removed since use nothing."""
    places = [
        Path(file.read_text(encoding="utf-8")) for file in sorted((root / USERS).glob("*")) if file.suffix != ".part"
    ]
    return [place for place in places if place.is_dir()]


def of(folder: Path) -> set[tuple[str, str]] | None:
    """(stage, key) of all that a run refers to, and ("partial", lineage); None where it does not say."""
    try:
        if (folder / PLAN).is_file():
            made_of = json.loads((folder / PLAN).read_text(encoding="utf-8"))
            return {(stage, key) for stage, keys in made_of.items() for key in keys}
        return {(entry["stage"], entry["key"]) for entry in json.loads((folder / INDEX).read_text(encoding="utf-8"))}
    except FileNotFoundError:
        return None


def of_others(root: Path, folder: Path) -> set[tuple[str, str]]:
    """What the runs at work refer to, but for the run, or the runs of the study, in `folder`."""
    own = folder.absolute()
    others = [place for place in users(root) if place != own and own not in place.parents]
    # a run of a study is locked by its study
    at_work = [place for place in others if store.holder(place) or store.holder(place.parent)]
    return set().union(*(of(place) or () for place in at_work))


@contextmanager
def locked(root: Path, how: int) -> Iterator[None]:
    """fcntl.LOCK_SH for a run that adds itself, LOCK_EX for a clean-up, and where folders give way to packs.

    Without effect on a file system that has no locks.
    """
    (root / USERS).mkdir(parents=True, exist_ok=True)
    with open(root / ".lock", "a", encoding="utf-8") as file:
        with suppress(OSError):
            fcntl.flock(file, how)
        yield
