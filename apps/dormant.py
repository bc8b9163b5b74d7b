"""Puts finished artifacts that nobody waits for into packs, and wakes them when a task asks for them again.

An artifact is a folder, or it is *dormant*: its files lie in a pack (apps/packs.py) and its folder is gone. It is in the pack before
the folder goes, so whatever ends this process loses nothing. To be *woken* is to be unpacked to its place, whole by a rename; the
pack keeps it. Where both are there the folder counts. What is large stays a folder: its files are few beside its bytes.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

from apps import packs, records
from apps.artifacts import MANIFEST

LARGE = 16 << 20  # bytes of an artifact that stays a folder
REMOVERS = 4  # threads

Files = dict[str, bytes]  # contents by name, the manifest first
log = logging.getLogger("merit.dormant")


def holds(path: Path) -> bool:
    """Whether a pack names the artifact of that place; its contents are not looked at."""
    return bool(_places(path))


def whole(path: Path, anew: bool = False) -> Files | None:
    """The files of a dormant artifact, every digest compared; None where no pack holds it as it was written.

    `anew`: packs are looked for even if nothing tells of new ones.
    """
    for place in _places(path, anew):
        try:
            files = dict(packs.members(place))
            reason = _fault(files)
        except FileNotFoundError:  # a clean-up took the pack
            continue
        except (OSError, ValueError) as error:
            reason = str(error)
        if reason is None:
            return files
        log.warning("%s %s is damaged in %s: %s; there it counts as absent", *path.parts[-3::2], place.pack, reason)
    return None


def read(path: Path, name: str) -> bytes:
    """A file of an artifact, from its folder or else its pack. FileNotFoundError where neither has it."""
    try:
        return (path / name).read_bytes()
    except FileNotFoundError:
        for place in _places(path):
            with suppress(OSError, ValueError):
                for found, data in packs.members(place):
                    if found == name:
                        return data
        raise


def manifest(path: Path) -> dict[str, Any]:
    """As artifacts.manifest, of a dormant one too."""
    return json.loads(read(path, MANIFEST))


def folder(path: Path) -> Path:
    """`path`, where the artifact was woken if it is dormant."""
    if not path.is_dir() and (files := whole(path, anew=True)) is not None:
        _unpack(files, path, packs.aside(_root(path), path.name))
    return path


def copied(path: Path, room: Path | None = None) -> Path:
    """Its folder; of a dormant one a copy in `room`, or one that goes with this process. For readers that leave a store as it is."""
    copy = Path(room or _room().name, records.digest(str(_root(path))), *path.parts[-3:])
    if not path.is_dir() and not copy.is_dir() and (files := whole(path)) is not None:
        _unpack(files, copy, copy.with_name(f"{copy.name}.part"))
    return copy if not path.is_dir() and copy.is_dir() else path


def pack(root: Path, paths: Iterable[Path], going_on: Callable[[], bool] = lambda: True) -> list[Path]:
    """Puts artifacts into packs; gives those that lie in one now, so that their folders may be taken down.

    Left out are large ones, damaged ones, and those with more in them than their manifests tell. `going_on` is asked before each.
    """
    done: list[Path] = []

    def found() -> Iterator[tuple[str, str, Files]]:
        for path in paths:
            if not going_on():
                return
            if whole(path) is not None:  # it was woken, and its pack has it still
                done.append(path)
            elif (files := _contents(path)) is not None:
                done.append(path)
                yield path.parts[-3], path.name, files

    entries = found()
    for first in entries:
        packs.write(root, chain([first], entries))
    return done


def take_down(root: Path, paths: Iterable[Path]) -> Path:
    """Moves the folders of artifacts that packs hold out of the way, whole; gives the folder that `remove` is for."""
    gone = packs.aside(root, "packed")
    gone.mkdir(parents=True)
    for path in paths:
        with suppress(FileNotFoundError):
            os.rename(path, gone / f"{path.parts[-3]}-{path.name}")
    return gone


def remove(gone: Path) -> None:
    """What `take_down` moved. By several threads: a file system lets each of them wait, on some ten milliseconds a folder."""
    with ThreadPoolExecutor(REMOVERS, thread_name_prefix="remove") as pool:
        list(pool.map(shutil.rmtree, gone.iterdir()))
    gone.rmdir()


def _places(path: Path, anew: bool = False) -> list[packs.Place]:
    return packs.of(_root(path)).holding(path.parts[-3], path.name, anew)


def _root(path: Path) -> Path:
    """Of the store that an artifact's place is in."""
    return path.parents[2]


def _contents(path: Path) -> Files | None:
    """Of an artifact that may be packed."""
    try:
        told = json.loads((path / MANIFEST).read_bytes())["files"]
        if sum(file["bytes"] for file in told.values()) > LARGE:
            return None
        names = [MANIFEST, *sorted(told, key=lambda name: told[name]["bytes"])]
        files = {}
        for name in names:
            with open(f"{path}/{name}", "rb") as file:
                files[name] = file.read()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # gone or damaged, as who needs it will find
        return None
    there = [(below, names) for _, below, names in os.walk(path)]
    told_all = sum(len(names) for _, names in there) == len(files) and all(below or names for below, names in there)
    return files if told_all and _fault(files) is None else None


def _fault(files: Mapping[str, bytes]) -> str | None:
    """Why files are not those that their manifest tells of."""
    try:
        told = json.loads(files[MANIFEST])
        seal = told.pop("seal")
        if seal != records.digest(told):
            return f"{MANIFEST} was changed"
        if missing := told["files"].keys() ^ (files.keys() - {MANIFEST}):
            return f"{min(missing)} is missing, or there and not told of"
        for name, expected in told["files"].items():
            if hashlib.sha256(files[name]).hexdigest() != expected["sha256"]:
                return f"{name} has other contents than were written"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{MANIFEST} cannot be read ({error})"
    return None


def _unpack(files: Mapping[str, bytes], place: Path, draft: Path) -> None:
    """Where another process was first, its copy stays. Nothing is flushed to disk: the pack is."""
    try:
        for name, data in files.items():
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            (draft / name).write_bytes(data)
        place.parent.mkdir(parents=True, exist_ok=True)
        os.rename(draft, place)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


@cache
def _room() -> tempfile.TemporaryDirectory:
    """The copies of this process; they go with it."""
    return tempfile.TemporaryDirectory(prefix="merit-")
