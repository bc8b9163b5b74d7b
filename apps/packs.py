"""Many small artifacts in one file: an uncompressed zip in `ROOT/packed` with members STAGE/KEY/FILE, and what lies where in it.

A pack is written aside, flushed to disk and renamed last, so one that bears its name is whole; it is never changed. The files of
an artifact lie side by side, the smaller ones first. The last member, INDEX, says where each artifact begins, and the archive's
comment where that member does: to know a pack takes two short reads, where a zip's own directory takes a read of every name.

Not here: what goes into packs, and what is done with it (apps/dormant.py).
"""

from __future__ import annotations

import json
import logging
import os
import socket
import struct
import threading
import time
import uuid
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

from apps import artifacts

FOLDER, SUFFIX, INDEX = "packed", ".zip", "index.json"
LIMIT = 1 << 30  # bytes, after which a pack is full
COMMENT, DIGITS = b"index at ", 20
HEAD = struct.Struct("<4s5H3I2H")  # of a member: signature, …, CRC-32, size, size, lengths of name and rest
SETTLED_S = 2  # a folder changed as lately may change again without a new time: clocks of file systems are coarse

Index = Mapping[str, Mapping[str, tuple[int, int]]]  # stage -> key -> where its first file begins, how many it has
log = logging.getLogger("merit.packs")


class Place(NamedTuple):
    """Where an artifact lies in a pack."""

    pack: Path
    begin: int
    files: int


def aside(root: Path, name: str) -> Path:
    """A folder's name below `ROOT/tmp` that nobody else takes; if this process dies, artifacts.sweep removes what is there."""
    return root / "tmp" / f"{name}.{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:8]}"


def write(root: Path, found: Iterator[tuple[str, str, Mapping[str, bytes]]]) -> Path:
    """A new pack of (stage, key, contents by file), as many as it takes until it is full."""
    draft, name = aside(root, "pack"), f"{datetime.now(timezone.utc):%Y%m%dT%H%M%S%f}-{uuid.uuid4().hex[:8]}{SUFFIX}"
    draft.mkdir(parents=True)
    try:
        with zipfile.ZipFile(draft / name, "w") as archive:
            _fill(archive, found)
        artifacts.flush(draft / name)
        (root / FOLDER).mkdir(exist_ok=True)
        os.rename(draft / name, root / FOLDER / name)
        artifacts.flush(root / FOLDER)
    finally:
        (draft / name).unlink(missing_ok=True)
        draft.rmdir()
    return root / FOLDER / name


def _fill(archive: zipfile.ZipFile, found: Iterator[tuple[str, str, Mapping[str, bytes]]]) -> None:
    index: dict[str, dict[str, tuple[int, int]]] = {}
    size = 0
    for stage, key, files in found:
        for name, data in files.items():
            archive.writestr(f"{stage}/{key}/{name}", data)
        index.setdefault(stage, {})[key] = archive.infolist()[-len(files)].header_offset, len(files)
        if (size := size + sum(map(len, files.values()))) > LIMIT:
            break
    archive.writestr(INDEX, json.dumps(index))
    archive.comment = COMMENT + str(archive.infolist()[-1].header_offset).zfill(DIGITS).encode()


def members(place: Place) -> Iterator[tuple[str, bytes]]:
    """(file, contents) of an artifact, one by one. ValueError where the pack is not as it was written."""
    with open(place.pack, "rb") as file:
        file.seek(place.begin)
        for _ in range(place.files):
            name, data = _member(file)
            yield name.split("/", 2)[-1], data


def _member(file: BinaryIO) -> tuple[str, bytes]:
    head = file.read(HEAD.size)
    if len(head) < HEAD.size:
        raise ValueError("it ends too early")
    signature, *_, crc, size, _, named, rest = HEAD.unpack(head)
    name = file.read(named).decode()
    file.seek(rest, os.SEEK_CUR)
    data = file.read(size)
    if signature != b"PK\3\4" or zlib.crc32(data) != crc:
        raise ValueError(f"{name} has other contents than were written")
    return name, data


def read(pack: Path) -> Index:
    """What a pack holds. ValueError where that cannot be told."""
    with open(pack, "rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - len(COMMENT) - DIGITS))
        _, comment, begin = file.read().partition(COMMENT)
        if not comment or not begin.isdigit():
            raise ValueError("it does not end as packs do")
        file.seek(int(begin))
        return json.loads(_member(file)[1])


class Packs:
    """The packs of a store, as far as this process has seen them; asking costs a look at their folder's time."""

    def __init__(self, root: Path) -> None:
        self.folder = root / FOLDER
        self._name = str(self.folder)
        self._known: dict[str, Index] = {}  # the newest first
        self._stamp: int | None = None
        self._lock = threading.Lock()

    def holding(self, stage: str, key: str, anew: bool = False) -> list[Place]:
        """Where an artifact lies, the newest first. `anew` looks into the folder whatever its time says."""
        self._look(anew)
        if not self._known:
            return []
        found = ((name, index[stage][key]) for name, index in self._known.items() if key in index.get(stage, ()))
        return [Place(self.folder / name, *place) for name, place in found]

    def _look(self, anew: bool) -> None:
        try:
            stamp = os.stat(self._name).st_mtime_ns
        except FileNotFoundError:
            self._known = {}
            return
        if anew or stamp != self._stamp:
            with self._lock:
                names = {name for name in os.listdir(self._name) if name.endswith(SUFFIX)}
                if names != self._known.keys():
                    known = {n: self._known[n] if n in self._known else _told(self.folder / n) for n in names}
                    self._known = dict(sorted(known.items(), reverse=True))
                self._stamp = stamp if time.time() - stamp / 1e9 > SETTLED_S else None


@cache
def of(root: Path) -> Packs:
    """Those of the store in `root`."""
    return Packs(root)


def every(root: Path) -> list[Path]:
    """The packs of a store, the oldest first."""
    return sorted((root / FOLDER).glob(f"*{SUFFIX}"))


def _told(pack: Path) -> Index:
    try:
        return read(pack)
    except (OSError, ValueError) as error:
        log.warning("%s cannot be read: %s; what it holds counts as absent", pack, error)
        return {}
