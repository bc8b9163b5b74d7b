"""An environment's archive, unpacked on this node: whole under its digest or not there at all.

The archive is a tar, compressed or not, of which this node has a copy (copies.py). It is unpacked aside and renamed. An unpacked
tree is whole if every file of the archive is in it with the same contents; what Python adds (`__pycache__`) does no harm.

A virtual environment holds its own path, so make it where it will be unpacked, `python -m venv --system-site-packages
/tmp/merit/env`, and pack it there: `tar -C /tmp/merit/env -cf env.tar .`
"""

from __future__ import annotations

import os
import shutil
import socket
import tarfile
import uuid
from pathlib import Path
from typing import IO

from apps import artifacts
from apps.records import MeritError

BLOCK = 1 << 20  # bytes


def unpack(archive: Path, target: Path) -> tuple[Path, bool]:
    """The unpacked tree in `target`/unpacked/<the archive's digest>, and whether it had to be made."""
    final = target / "unpacked" / archive.parent.name
    artifacts.sweep(target)
    with _opened(archive) as tar:
        if final.is_dir() and is_whole(tar, final):
            return final, False
        check_room(tar, target)
        mark = f"{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:8]}"
        draft, aside = target / "tmp" / f"unpacked.{mark}", target / "tmp" / f"damaged.{mark}"
        draft.mkdir(parents=True)
        try:
            tar.extractall(draft, filter="tar")  # links may lead out of it, as a venv's do; files may not
            final.parent.mkdir(exist_ok=True)
            try:
                os.rename(draft, final)
            except OSError:  # one is there: another process has been faster, or it is not whole
                if not is_whole(tar, final):
                    os.rename(final, aside)
                    os.rename(draft, final)
        finally:
            for folder in (draft, aside):
                shutil.rmtree(folder, ignore_errors=True)
    return final, True


def is_whole(tar: tarfile.TarFile, folder: Path) -> bool:
    """Whether every member is in the folder: files with their contents, links with where they lead."""
    return all(_same(tar, member, folder / member.name) for member in tar)


def check_room(tar: tarfile.TarFile, target: Path) -> None:
    """MeritError where the disk has no room for what is in the archive."""
    wanted, free = sum(-(-member.size // 4096) * 4096 for member in tar), shutil.disk_usage(target).free
    if free < wanted:
        raise MeritError(
            f"staging: {target} on {socket.gethostname()} has {free / 1e6:.0f} MB free, what {tar.name} holds takes "
            f"{wanted / 1e6:.0f} MB; it was not unpacked"
        )


def _same(tar: tarfile.TarFile, member: tarfile.TarInfo, place: Path) -> bool:
    if member.issym():
        return place.is_symlink() and os.readlink(place) == member.linkname
    if not member.isfile():
        return place.exists()
    if not place.is_file() or place.stat().st_size != member.size:
        return False
    packed = tar.extractfile(member)
    with open(place, "rb") as there:
        return packed is not None and _equal(packed, there)


def _equal(one: IO[bytes], other: IO[bytes]) -> bool:
    while (block := one.read(BLOCK)) == other.read(BLOCK):
        if not block:
            return True
    return False


def _opened(archive: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(archive)
    except (tarfile.TarError, OSError) as error:
        why = str(error).splitlines()[0]
        raise MeritError(f"staging: {archive} is no archive that can be unpacked ({why}); a tar is expected") from error
