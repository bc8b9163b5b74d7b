"""What of a store no run refers to, and its removal: the artifacts of runs whose folders are gone, or whose code has changed.

A run that is at work refers to all that it will make or need, so nothing of it is ever taken. Drafts (`tmp`) are taken where
their writer is dead, or on another host and silent for a day; what was set aside as damaged, always. A pack goes when no run refers
to anything in it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from apps import artifacts, packs, stages
from apps.artifacts import MANIFEST
from workflows.driver import references

SILENT_S = 24 * 3600  # after which a draft of another host is taken for left behind
# folders of a store that hold no artifacts as folders
APART = ("tmp", "damaged", packs.FOLDER, stages.PARTIAL, references.USERS)


@dataclass(frozen=True, slots=True)
class Found:
    """What can go."""

    runs: tuple[Path, ...]  # that were asked
    silent: tuple[Path, ...]  # runs that do not say what they refer to
    places: dict[str, list[Path]]  # stage, or tmp, damaged, partial, packed -> folders, or packs
    bytes: dict[str, int]  # of each
    kept: int  # artifacts that runs refer to

    @property
    def total(self) -> int:
        return sum(self.bytes.values())


def clean(root: Path, runs: Path, remove: bool) -> Found:
    """Looks, and with `remove` takes away. Runs are those of the folder `runs`, and all that use this store elsewhere."""
    with references.locked(root, fcntl.LOCK_EX if remove else fcntl.LOCK_SH):
        found = look(root, runs)
        for place in (p for places in found.places.values() for p in places) if remove else ():
            _remove(root, place)
    return found


def look(root: Path, runs: Path) -> Found:
    folders = list(dict.fromkeys([*references.users(root), *_in(runs)]))
    said = {folder: references.of(folder) for folder in folders}
    wanted = set().union(*(refers for refers in said.values() if refers))
    places: dict[str, list[Path]] = {}
    kept: set[tuple[str, str]] = set()
    for stage, place in _artifacts(root):
        if (stage, place.name) in wanted:
            kept.add((stage, place.name))
        else:
            places.setdefault(stage, []).append(place)
    for pack in packs.every(root):
        if (held := _held(pack)) is not None:
            kept |= held & wanted
            places.setdefault(packs.FOLDER, []).extend(() if held & wanted else (pack,))
    places[stages.PARTIAL] = [p for p in _inside(root / stages.PARTIAL) if (stages.PARTIAL, p.name) not in wanted]
    places["damaged"], places["tmp"] = list(_inside(root / "damaged")), [p for p in _inside(root / "tmp") if _left(p)]
    places = {name: there for name, there in places.items() if there}
    sizes = {name: sum(map(_bytes, there)) for name, there in places.items()}
    return Found(tuple(folders), tuple(f for f in folders if said[f] is None), places, sizes, len(kept))


def _in(runs: Path) -> Iterator[Path]:
    """Folders of runs and of the runs of studies, by the configuration or manifest that each has."""
    for pattern in ("*/config.yaml", "*/manifest.yaml", "*/*/config.yaml"):
        yield from sorted(
            {file.parent.absolute() for file in runs.glob(pattern) if file.relative_to(runs).parts[0] != "latest"}
        )


def _artifacts(root: Path) -> Iterator[tuple[str, Path]]:
    for manifest in root.glob(f"*/??/*/{MANIFEST}"):
        if manifest.parts[-4] not in APART:
            yield manifest.parts[-4], manifest.parent


def _held(pack: Path) -> set[tuple[str, str]] | None:
    """What a pack holds; None where that cannot be read, so that it stays."""
    try:
        return {(stage, key) for stage, keys in packs.read(pack).items() for key in keys}
    except (OSError, ValueError):
        return None


def _inside(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _left(draft: Path) -> bool:
    """Whether who wrote it is gone. Its name is KEY.HOST.PROCESS.NUMBER, or that of something that is being removed."""
    host, _, process = draft.name.partition(".")[2].rpartition(".")[0].rpartition(".")
    if host == socket.gethostname() and process.isdigit():
        return not artifacts.alive(int(process))
    newest = max((f.lstat().st_mtime for f in (draft, *draft.rglob("*")) if f.exists()), default=0.0)
    return time.time() - newest > SILENT_S


def _bytes(place: Path) -> int:
    files: Iterable[Path] = [place] if place.is_file() else place.rglob("*")
    return sum(file.lstat().st_size for file in files if file.is_file())


def _remove(root: Path, place: Path) -> None:
    """Under another name first: what bears its own name is whole, also when this is interrupted."""
    (root / "tmp").mkdir(exist_ok=True)
    aside = root / "tmp" / f"{place.name}.{socket.gethostname()}.{os.getpid()}.gone"
    os.rename(place, aside)
    shutil.rmtree(aside) if aside.is_dir() else aside.unlink()
