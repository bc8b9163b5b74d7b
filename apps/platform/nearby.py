"""Where tasks look for what many of them read: copies on their own node (copies.py), on a site that has a folder for them.

Models are copied before a run (staging.py); a task takes the copy where its node has one, and else the model itself. Adapters
are small and new in every round: the first task of a node that wants one copies it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from apps.platform import copies
from apps.records import MeritError

log = logging.getLogger("merit.nearby")


def models(machine: Mapping[str, Any]) -> dict[str, Any]:
    """What a task is told of its machine, with this node's copies in place of models; `staging` is the folder, if any."""
    if not machine.get("staging"):
        return dict(machine)
    places = {digest: _copy(place, machine["staging"]) for digest, place in machine.get("places", {}).items()}
    return {**machine, "model": _copy(machine.get("model", ""), machine["staging"]), "places": places}


@cache  # a model that a worker has opened it does not look for again
def _copy(model: str, target: str) -> str:
    source = Path(model).resolve()
    if not model or not source.exists():
        return model
    digest = copies.there(Path(target), copies.stamp(copies.listing(source)), contents=False)
    return str(Path(target) / digest / source.name) if digest else model


def folder(source: Path, target: Path, without: Sequence[str] = ()) -> Path:
    """A small folder's copy on this node, made now if need be; the folder itself where it cannot be made."""
    try:
        return copies.copy(source, target, without, contents=False).path
    except (MeritError, OSError) as error:
        log.warning("%s is read in place: %s", source, error)
        return source
