"""Results by key: a stage's result is an artifact, a folder named by the digest of all that it depends on.

A key is known before anything runs, since it is made of the *keys* of the inputs and not of their contents. What lies
under a key is checked when it is found (apps/artifacts.py); what is damaged counts as absent and is made again. Results that
nobody waits for may lie in packs (apps/dormant.py): they are found there and stay there until a task asks for them.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from apps import artifacts, dormant, packs, records
from apps.records import Artifact, MeritError

LOOK_S = 0.05

log = logging.getLogger("merit.store")


class Store:
    """The artifacts under one folder. Any number of processes and hosts may use it at once."""

    def __init__(self, root: str | Path):
        self.root = Path(root).absolute()
        self._packs = packs.of(self.root)
        self._dormant: set[str] = set()  # keys of what was found in packs
        artifacts.sweep(self.root)

    @staticmethod
    def key(stage: str, code: str, options: Any, inputs: Any) -> str:
        """The key of a result, 32 hex digits.

        `code` is of `closure.code_digest`. `options` is whatever else decides the result (pydantic models, dataclasses
        and paths are taken as JSON). `inputs` holds the keys of the artifacts it is made from: {"traces": key, …}.
        """
        return records.digest(to_jsonable_python({"stage": stage, "code": code, "options": options, "inputs": inputs}))

    def has(self, stage: str, key: str) -> bool:
        """Whether `find` is likely to find it: files and sizes are looked at, contents are not, and nothing is moved."""
        there = artifacts.check(artifacts.locate(self.root, stage, key), contents=False) is None
        return there or bool(self._packs.holding(stage, key))

    def find(self, stage: str, key: str) -> Artifact | None:
        """The artifact of `key` if it is there and whole. A damaged one is moved aside and counts as absent."""
        path = artifacts.locate(self.root, stage, key)
        if path.exists():
            if not (reason := artifacts.check(path)):
                return Artifact(stage, key, str(path))
            aside = artifacts.set_aside(self.root, path)
            log.warning("%s %s is damaged: %s; moved to %s, it will be made again", stage, key, reason, aside)
        if not self._packs.holding(stage, key) or not dormant.whole(path):
            return None
        self._dormant.add(key)
        return Artifact(stage, key, str(path))

    def wake(self, given: Iterable[Artifact]) -> None:
        """Has folders of what was found in packs; each of the workers that want them would have to look for the pack first."""
        for artifact in given:
            if artifact.key in self._dormant:
                self._dormant.discard(artifact.key)
                with suppress(OSError):  # a full disk, which the task will meet too
                    dormant.folder(Path(artifact.path))


@contextmanager
def lock(folder: str | Path) -> Iterator[str]:
    """Keeps a run's folder for this driver; a second driver is told who has it. Gives who had it and was killed, else "".

    The operating system holds the lock (flock) and lets go when the driver ends, however it ends, so it is never stale.
    """
    path = Path(folder) / ".lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+", encoding="utf-8") as file:
        _acquire(file, path)
        killed = _named(_holder(file))
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": datetime.now().isoformat(" ", "seconds")}
        _rewrite(file, json.dumps(holder))
        try:
            yield killed
        finally:
            _rewrite(file, "")


def holder(folder: str | Path) -> dict[str, Any] | None:
    """Who has a run's folder: pid, host, since. None where nobody does, as far as can be seen from this host.

    A driver of this host that was killed has let go. One of another host is believed: not every file system tells its locks.
    """
    try:
        with open(Path(folder) / ".lock", encoding="utf-8") as file:
            found = json.loads(file.read() or "null")
            if found and found["host"] == socket.gethostname():
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # nobody has it
                return None
            return found
    except BlockingIOError:
        return found
    except (OSError, ValueError):  # no run was here, or it is being written
        return None


def _acquire(file: Any, path: Path) -> None:
    try:
        _patiently(file)
    except BlockingIOError as error:
        raise MeritError(
            f"{path.parent} is in use by another run: {_named(_holder(file)) or 'one that has just begun'}; wait for it, "
            "end it, or choose another name for this run"
        ) from error
    except OSError as error:  # a file system without locks: two drivers cost time there but spoil no result
        log.warning("%s cannot be locked (%s): see that no second run uses it", path.parent, error.strerror)


def _patiently(file: Any) -> None:
    """Takes the lock; who only looks whether it is held, as `holder` does, has it for a moment."""
    for last in (False, False, True):
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if last:
                raise
        time.sleep(LOOK_S)


def _holder(file: Any) -> dict[str, Any]:
    """What the last holder wrote of itself; it is empty where that one let go."""
    file.seek(0)
    try:
        return json.loads(file.read() or "{}")
    except ValueError:  # it is being written
        return {}


def _named(holder: dict[str, Any]) -> str:
    return f"process {holder['pid']} on {holder['host']} since {holder['since']}" if holder else ""


def _rewrite(file: Any, text: str) -> None:
    file.seek(0)
    file.truncate()
    file.write(text)
    file.flush()
