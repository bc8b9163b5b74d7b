"""A copy of a folder or file on this node: whole under the digest of its contents, or not there at all.

TARGET/<digest>/ holds a manifest and the files under their own names, the folder's name included: what was `models/llama/…` is
`TARGET/<digest>/llama/…`. A copy is written aside and renamed. It is not flushed to the disk: a node that fails loses it
anyway, and contents can be compared with their digests. TARGET/stamps/<stamp> remembers which contents a source had when it
was read, so it need not be read again to know that its copy is here; a stamp is made of names, sizes, times and inodes.

Who reads the source is not said here: `supply` fills a buffer, from a file or from other ranks (staging.py). Nor which copies
tasks use (nearby.py).
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apps import artifacts, records
from apps.records import MeritError

CHUNK = 32 << 20  # bytes
MANIFEST = artifacts.MANIFEST
SPARE = 16 << 20  # bytes that are to be free besides
BLOCK = 4096  # bytes that a file's last block may waste


@dataclass(frozen=True, slots=True)
class File:
    """A file of a source."""

    name: str  # relative to the folder that the source lies in, with slashes
    bytes: int
    executable: bool
    stamp: str  # changes when the file does, and does not take reading it


@dataclass(frozen=True, slots=True)
class Copy:
    """A source as it is on this node."""

    path: Path  # of the folder or file
    made: bool  # False = it was there already
    bytes: int


class Unreadable(MeritError):
    """The source's fault, and no node's."""


Supply = Callable[[File, int, memoryview], None]  # fills the buffer with the file's bytes from an offset on


def listing(source: Path, without: Sequence[str] = ()) -> list[File]:
    """The files of a folder, but those with a name in `without`, or the file itself; links are followed."""
    if not source.exists():
        raise Unreadable(f"staging: there is no file or folder {str(source)!r}")
    found = [source] if source.is_file() else sorted(file for file in source.rglob("*") if file.is_file())
    chosen = [file for file in found if file.name not in without]
    if not chosen:
        raise Unreadable(f"staging: {str(source)!r} has no files")
    return [_file(file, source.parent) for file in chosen]


def _file(file: Path, parent: Path) -> File:
    there = file.stat()
    stamp = f"{there.st_ino} {there.st_mtime_ns}"
    return File(file.relative_to(parent).as_posix(), there.st_size, bool(there.st_mode & 0o100), stamp)


def stamp(files: Sequence[File]) -> str:
    return records.digest([[file.name, file.bytes, file.executable, file.stamp] for file in files])


def copy(source: Path, target: Path, without: Sequence[str] = (), contents: bool = True) -> Copy:
    """The copy of `source` under `target`, made if it is not there or not whole. At the same time one process makes it.

    With `contents` false a copy that is there counts as whole if its files have their sizes.
    """
    source, files = source.resolve(), listing(source.resolve(), without)
    with _alone(target / "locks" / stamp(files)):
        if digest := there(target, stamp(files), contents):
            return Copy(target / digest / source.name, False, total(files))
        check_room(target, files)
        digest, fault = write(files, target, reading(source.parent))
        if fault:
            raise MeritError(fault)
        remember(target, stamp(files), digest)
    return Copy(target / digest / source.name, True, total(files))


def there(target: Path, stamp: str, contents: bool = True) -> str | None:
    """The digest of the contents that a source of this stamp had, if they are here and whole."""
    try:
        digest = (target / "stamps" / stamp).read_text(encoding="utf-8")
    except OSError:
        return None
    return digest if damage(target / digest, contents) is None else None


def damage(copy: Path, contents: bool = True) -> str | None:
    """Why a copy cannot be used, or None: its files have the sizes, and with `contents` the digests, that its name stands for."""
    try:
        files = json.loads((copy / MANIFEST).read_bytes())["files"]
        if digest_of(files) != copy.name:
            return f"{MANIFEST} was changed"
        for name, known in files.items():
            if (size := (copy / name).stat().st_size) != known["bytes"]:
                return f"{name} has {size} bytes, not {known['bytes']}"
            if contents and artifacts.sha256(copy / name) != known["sha256"]:
                return f"{name} has other contents than were written"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"it cannot be read ({error})"
    return None


def digest_of(files: Mapping[str, Mapping[str, Any]]) -> str:
    """The name of a copy, from its manifest's files."""
    return records.digest([[name, known["sha256"], known["executable"]] for name, known in sorted(files.items())])


def total(files: Sequence[File]) -> int:
    return sum(file.bytes for file in files)


def check_room(target: Path, files: Sequence[File]) -> None:
    """MeritError where the disk of `target` has no room for a copy; nothing is written."""
    target.mkdir(parents=True, exist_ok=True)
    wanted, free = total(files) + BLOCK * len(files) + SPARE, shutil.disk_usage(target).free
    if free < wanted:
        raise MeritError(
            f"staging: {target} on {socket.gethostname()} has {free / 1e6:.0f} MB free, a copy of "
            f"{files[0].name.split('/')[0]} takes {wanted / 1e6:.0f} MB; nothing was written"
        )


def reading(parent: Path) -> Supply:
    """From the files themselves."""

    def supply(file: File, offset: int, buffer: memoryview) -> None:
        try:
            with open(parent / file.name, "rb", buffering=0) as opened:
                opened.seek(offset)
                while buffer:
                    if not (count := opened.readinto(buffer)):
                        raise Unreadable(f"staging: {parent / file.name} became shorter while it was read")
                    buffer = buffer[count:]
        except OSError as error:
            raise Unreadable(f"staging: {parent / file.name} cannot be read: {error}") from error

    return supply


def write(files: Sequence[File], target: Path | None, supply: Supply, chunk: int = CHUNK) -> tuple[str, str | None]:
    """Makes a copy of what is supplied: its digest, and why it could not be written. Without a target there is the digest alone.

    While a chunk is written and digested the next one is supplied. All is supplied, also after a fault in writing, since other
    ranks wait for it.
    """
    largest = min(chunk, max(file.bytes for file in files))
    buffers = [memoryview(bytearray(largest)) for _ in range(2)]
    with _Writer(target) as writer, ThreadPoolExecutor(2) as beside:
        busy: list[Future[None]] = []
        for number, (file, offset, size) in enumerate(chunks(files, chunk)):
            buffer = buffers[number % 2][:size]
            supply(file, offset, buffer)
            for one in busy:
                one.result()  # before the other buffer is filled again
            busy = [beside.submit(take, file, offset, buffer) for take in (writer.digest, writer.write)]
        for one in busy:
            one.result()
        return writer.finish()


def chunks(files: Sequence[File], size: int) -> Iterator[tuple[File, int, int]]:
    """(file, offset, bytes) of every piece, in the order in which they are handed round; an empty file is an empty piece."""
    for file in files:
        for offset in range(0, file.bytes or 1, size):
            yield file, offset, min(size, file.bytes - offset)


def remember(target: Path, stamp: str, digest: str) -> None:
    """That a source of this stamp has contents of this digest."""
    aside = target / "stamps" / f".{uuid.uuid4().hex}"
    aside.parent.mkdir(exist_ok=True)
    aside.write_text(digest, encoding="utf-8")
    os.replace(aside, aside.with_name(stamp))


class _Writer:
    """Takes pieces in their order, writes them aside and works digests out."""

    def __init__(self, target: Path | None) -> None:
        self.target = target
        self.fault: OSError | None = None
        self.known: dict[str, dict[str, Any]] = {}
        if target:
            artifacts.sweep(target)  # what writers that died have left
            self.draft = target / "tmp" / f"copy.{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:8]}"

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *fault: object) -> None:
        if self.target:
            shutil.rmtree(self.draft, ignore_errors=True)

    def digest(self, file: File, offset: int, piece: memoryview) -> None:
        if offset == 0:
            self.state = hashlib.sha256()
        self.state.update(piece)
        if offset + len(piece) == file.bytes:
            sha256 = self.state.hexdigest()
            self.known[file.name] = {"bytes": file.bytes, "sha256": sha256, "executable": file.executable}

    def write(self, file: File, offset: int, piece: memoryview) -> None:
        if self.target and not self.fault:
            try:
                self._write(file, offset, piece)
            except OSError as error:
                self.fault = error
                shutil.rmtree(self.draft, ignore_errors=True)

    def _write(self, file: File, offset: int, piece: memoryview) -> None:
        place = self.draft / file.name
        if offset == 0:
            place.parent.mkdir(parents=True, exist_ok=True)
        with open(place, "ab", buffering=0) as opened:
            while piece:
                piece = piece[opened.write(piece) :]
        place.chmod(0o755 if file.executable else 0o644)

    def finish(self) -> tuple[str, str | None]:
        """Gives the copy its name. Where another writer was first, its copy stays, unless it is damaged."""
        digest = digest_of(self.known)
        if self.target and not self.fault:
            try:
                (self.draft / MANIFEST).write_text(json.dumps({"files": self.known}), encoding="utf-8")
                self._take_name(self.target / digest)
            except OSError as error:
                self.fault = error
        return digest, f"staging: {self.target} cannot be written to: {self.fault}" if self.fault else None

    def _take_name(self, final: Path) -> None:
        try:
            os.rename(self.draft, final)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            if damage(final):
                aside = self.draft.with_name(self.draft.name.replace("copy.", "damaged.", 1))
                os.rename(final, aside)
                os.rename(self.draft, final)
                shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    """One process of this node at a time; the system lets go when it ends, however it ends."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
