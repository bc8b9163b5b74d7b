"""Writes an artifact so that it is either whole under its final name or not there at all, and checks it.

An artifact is a folder `ROOT/<stage>/<first two digits of the key>/<key>`. It is written under `ROOT/tmp` (the same
file system, so a rename is atomic), flushed to disk and renamed last; `manifest.json` holds the digest of every file.
Two writers of one key are no fault: the first one wins, the other's copy is thrown away.

Not here: what a key is made of, and what to do when a check fails (workflows/store.py).
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import shutil
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from apps import records
from apps.records import MeritError

MANIFEST = "manifest.json"
FULL = (errno.ENOSPC, errno.EDQUOT)
_read: set[tuple[str, int]] = (
    set()
)  # (folder, mtime of its manifest) whose contents this process has read and found right


def locate(root: str | Path, stage: str, key: str) -> Path:
    """Where the artifact of `key` lies, whether it exists or not."""
    return Path(root) / stage / key[:2] / key


@contextmanager
def new(root: str | Path, stage: str, key: str, record: dict[str, Any]) -> Iterator[Path]:
    """A folder to write an artifact into; it takes its final name when the block ends without an exception.

    `record` (JSON) says what it was made from: the stage's options and the keys of its inputs. After an exception
    nothing is left; after SIGKILL a folder in `ROOT/tmp` is, which `sweep` removes. A full disk raises a MeritError.
    """
    started, final = time.time(), locate(root, stage, key)
    draft = Path(root) / "tmp" / f"{key}.{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:8]}"
    try:
        draft.mkdir(parents=True)
        yield draft
        _write_manifest(draft, stage, key, record, started)
        final.parent.mkdir(parents=True, exist_ok=True)
        _take_name(draft, final, Path(root))
    except Exception as error:
        shutil.rmtree(draft, ignore_errors=True)  # first, so that the free space named below is what the user has
        if _disk_is_full(error):
            free = shutil.disk_usage(Path(root)).free / 1e6
            raise MeritError(
                f"the disk is full: {stage} could not be written into {root} ({free:.0f} MB free); make room there or "
                f"choose another store, then run again: what is finished is kept"
            ) from error
        raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def check(path: str | Path, contents: bool = True, anew: bool = False) -> str | None:
    """Why the artifact at `path` cannot be used, or None if it can.

    Sizes are compared at every call, SHA-256 digests (with `contents`) at the first call in this process, or `anew`.
    """
    path = Path(path)
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
        seal = manifest.pop("seal")
        read = (str(path), (path / MANIFEST).stat().st_mtime_ns)
        if seal != records.digest(manifest):
            return f"{MANIFEST} was changed"
        for name, expected in manifest["files"].items():
            if reason := _check_file(path / name, expected, contents and (anew or read not in _read)):
                return f"{name} {reason}"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{MANIFEST} cannot be read ({error})"
    if contents:
        _read.add(read)
    return None


def manifest(path: str | Path) -> dict[str, Any]:
    """The manifest of an artifact: stage, key, record, created, seconds, host, files {name: {bytes, sha256}}, seal."""
    return json.loads((Path(path) / MANIFEST).read_bytes())


def set_aside(root: str | Path, path: Path) -> Path | None:
    """Moves a damaged artifact to `ROOT/damaged`, where it can be looked at; None if another process did so first."""
    place = Path(root) / "damaged" / f"{path.parts[-3]}-{path.name}-{uuid.uuid4().hex[:8]}"
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.rename(path, place)
    except FileNotFoundError:
        return None
    return place


def sweep(root: str | Path) -> int:
    """Removes what writers that died on this host left in `ROOT/tmp`; says how many folders."""
    count = 0
    for draft in (Path(root) / "tmp").glob(f"*.{glob.escape(socket.gethostname())}.*.*"):
        if not alive(int(draft.name.rsplit(".", 2)[1])):
            shutil.rmtree(draft, ignore_errors=True)
            count += 1
    return count


def alive(pid: int) -> bool:
    """Whether a process of this number exists on this host."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it exists and is someone else's
    return True


def sha256(path: Path) -> str:
    """The SHA-256 of a file's contents, in hex."""
    state = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            state.update(block)
    return state.hexdigest()


def _write_manifest(draft: Path, stage: str, key: str, record: dict[str, Any], started: float) -> None:
    inside = sorted(path for path in draft.rglob("*") if path.exists())
    files = [path for path in inside if path.is_file()]
    entry = {
        "stage": stage,
        "key": key,
        "record": record,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "seconds": round(time.time() - started, 3),
        "host": socket.gethostname(),
        "files": {f.relative_to(draft).as_posix(): {"bytes": f.stat().st_size, "sha256": sha256(f)} for f in files},
    }
    entry["seal"] = records.digest(entry)
    (draft / MANIFEST).write_text(json.dumps(entry), encoding="utf-8")  # indented it would take Python's slow encoder
    for path in [*inside, draft / MANIFEST, draft]:
        flush(path)


def _take_name(draft: Path, final: Path, root: Path) -> None:
    """Renames; where another writer was first, its copy stays, unless it is damaged."""
    try:
        os.rename(draft, final)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        if check(final, contents=False):
            set_aside(root, final)
            os.rename(draft, final)
    flush(final.parent)


def _check_file(path: Path, expected: dict[str, Any], contents: bool) -> str | None:
    if not path.is_file():
        return "is missing"
    if (size := path.stat().st_size) != expected["bytes"]:
        return f"has {size} bytes, not {expected['bytes']}"
    if contents and sha256(path) != expected["sha256"]:
        return "has other contents than were written"
    return None


def _disk_is_full(error: BaseException) -> bool:
    """Also as the libraries that write through C or Rust report it, without an errno."""
    return getattr(error, "errno", None) in FULL or "No space left on device" in str(error)


def flush(path: Path) -> None:
    """Waits until a file, or a folder's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
