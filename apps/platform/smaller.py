"""Smaller batches for a task whose memory did not suffice: the same work in more pieces, the same result within rounding.

What is halved says how a task is carried out and not what it computes, so its key stays as it is. What was done is told in
the artifact's facts. Steps of an optimiser (`step_rows`) decide a result and are never touched.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from apps import leaf
from apps.records import MeritError

SIZES = {"training": "micro_tokens", "reading": "micro_tokens", "engine": "rows"}  # section -> its size of a batch
HALVINGS = 6  # at most: what does not fit into a 64th does not fit


def halved(options: Mapping[str, Any], times: int) -> tuple[dict[str, Any], dict[str, int]]:
    """The options with batches halved so often, and what became of each size: {"engine.rows": 64}; empty = none to halve."""
    found, told = dict(options), {}
    for section, name in SIZES.items():
        size = _size(options, section, name) if times else None
        if size and size > 1:
            told[f"{section}.{name}"] = max(1, size >> times)
            found[section] = {**options[section], name: max(1, size >> times)}
    return found, told


def can_be(options: Mapping[str, Any], times: int) -> bool:
    """Whether the batches get smaller by halving them that often, once more than the time before."""
    return times <= HALVINGS and halved(options, times)[1] != halved(options, times - 1)[1]


def _size(options: Mapping[str, Any], section: str, name: str) -> int | None:
    """What is set, or the default of the section's leaf; None where this task has no such size."""
    given = options.get(section)
    if not isinstance(given, Mapping):
        return None
    if name in given or "name" not in given:
        return given.get(name)
    try:
        return getattr(leaf.options("inference/engines", dict(given)), name, None)
    except MeritError:  # the task itself will say what is wrong
        return None
