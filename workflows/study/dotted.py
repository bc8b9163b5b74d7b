"""Settings by dotted names, as they are written on the command line: {"credit.name": "shapley"} for {"credit": {"name": …}}."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Flat = dict[str, Any]  # dotted setting -> value


def flat(settings: Mapping[str, Any], above: str = "") -> Flat:
    """{"a": {"b": 1}} as {"a.b": 1}; an empty section stays as it is."""
    found: Flat = {}
    for key, value in settings.items():
        inner = isinstance(value, Mapping) and value
        found |= flat(value, f"{above}{key}.") if inner else {f"{above}{key}": value}
    return found


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The way back; a value that is a section itself is laid over what stands there."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        for part in reversed(key.split(".")):
            value = {part: value}
        found = _merged(found, value)
    return found


def sections(settings: Mapping[str, Any]) -> Flat:
    """Every setting and every section by its dotted name."""
    found = flat(settings)
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found[key] = value
    return found


def _merged(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` over `below`, section by section; unlike an overlay, a name drops nothing: both are of one run."""
    result = dict(below)
    for key, value in above.items():
        both = isinstance(result.get(key), dict) and isinstance(value, Mapping)
        result[key] = _merged(result[key], value) if both else value
    return result
