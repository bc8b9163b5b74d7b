"""The axes of a study: what each section of a manifest may be, point by point.

`random` and `repeat` may ask for any number of points, so these are made as they are asked for, and counted before.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, log, prod
from typing import Any

from workflows.study.dotted import Flat, flat, nested
from workflows.study.manifest import Draw, Random, Sheet

FIXED = {
    "name": "runs are named by `names`",
    "runs": "the folder of all runs is set by runs=FOLDER on the command line",
    "store": "all runs of a study share a store; set it by store=FOLDER on the command line",
    "pack": "all runs of a study share a store; set it by pack=false on the command line",
}
DIGITS = 6  # of a number that is drawn


@dataclass(frozen=True, slots=True)
class Choice:
    """A point of an axis."""

    label: str  # in names
    settings: Flat
    fields: Flat  # what `names` and `exclude` may use besides settings: list, draw


Axes = dict[tuple[str, ...], Sequence[Choice]]  # place in the manifest -> the points there


def axes(sheet: Sheet, base: Mapping[str, Any]) -> Axes:
    """place in the manifest -> the points there. Nothing long is made before it was counted."""
    manifest = sheet.manifest
    for section, given in (("grid", manifest.grid), ("zip", manifest.side_by_side), ("list", manifest.rows)):
        if not given and (section,) in sheet.source.lines:
            raise sheet.fault(section, f"an empty {section} makes no run; fill it, or leave it out")
    found: Axes = {}
    for setting, values in _columns(sheet, "grid", manifest.grid).items():
        found["grid", setting] = [_single(setting, value) for value in values]
    if columns := _columns(sheet, "zip", manifest.side_by_side):
        found["zip",] = _zipped(sheet, columns)
    if manifest.rows:
        found["list",] = _rows(manifest.rows)
    if manifest.random:
        found["random",] = Drawn(manifest.random)
    if manifest.repeat != 1:
        found["repeat",] = Seeds(_seeds(sheet, base))
    _check_settings(sheet, found)
    _check_count(sheet, found)
    return found


def _single(setting: str, value: Any) -> Choice:
    return Choice(f"seed{value}" if setting == "seed" else label(value), {setting: value}, {})


def drawn(draw: Draw, seed: int, number: int, setting: str) -> Any:
    """The value of a setting in a row: keyed, so that more draws or other settings change none of those there are."""
    digest = hashlib.sha256(f"{seed}/{number}/{setting}".encode()).digest()
    share = int.from_bytes(digest[:6], "big") / 2**48  # in [0, 1)
    if draw.choice is not None:
        return draw.choice[int(share * len(draw.choice))]
    if draw.integers is not None:
        low, high = draw.integers
        return low + int(share * (high - low + 1))
    low, high = draw.uniform or draw.log_uniform or (0.0, 0.0)
    value = low + share * (high - low) if draw.uniform else exp(log(low) + share * (log(high) - log(low)))
    return min(high, max(low, float(f"{value:.{DIGITS}g}")))


def label(value: Any) -> str:
    """A value as a part of a name."""
    if isinstance(value, Mapping):
        value = value.get("name", "-".join(f"{k}-{label(v)}" for k, v in value.items()))
    if isinstance(value, (list, tuple)):
        value = "-".join(map(label, value))
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return re.sub(r"[^\w.-]+", "_", text).strip("._-") or "none"


class Drawn(Sequence):
    """The rows of `random`, drawn as they are asked for."""

    def __init__(self, random: Random) -> None:
        self.random = random

    def __len__(self) -> int:
        return self.random.draws

    def __getitem__(self, number: int) -> Choice:
        if not 0 <= number < len(self):
            raise IndexError(number)
        settings = {k: drawn(draw, self.random.seed, number, k) for k, draw in self.random.settings.items()}
        return Choice(f"draw{number}", settings, {"draw": number})


class Seeds(Sequence):
    """The seeds of `repeat`."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self.seeds = seeds

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, number: int) -> Choice:
        return _single("seed", self.seeds[number])


def _columns(sheet: Sheet, section: str, given: Mapping[str, Any], above: str = "") -> dict[str, list[Any]]:
    """The settings of `grid` or `zip`, dotted or nested, each with its list."""
    found: dict[str, list[Any]] = {}
    for key, values in given.items():
        place = (section, *f"{above}{key}".split(".")) if above else (section, key)
        if isinstance(values, Mapping):
            found |= _columns(sheet, section, values, f"{above}{key}.")
            continue
        if not isinstance(values, list):
            raise sheet.fault(*place, f"a list of values is expected, given {values!r}; write [{values!r}]")
        if not values:
            raise sheet.fault(*place, "an empty list makes no run; give values, or leave the setting out")
        for number, value in enumerate(values):
            if value in values[:number]:
                raise sheet.fault(*place, f"the value {value!r} stands there twice")
        found[f"{above}{key}"] = values
    return found


def _zipped(sheet: Sheet, columns: Mapping[str, list[Any]]) -> list[Choice]:
    lengths = {key: len(values) for key, values in columns.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{key} has {n}" for key, n in lengths.items())
        raise sheet.fault("zip", f"lists of one length are expected, value by value beside each other: {told}")
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return [Choice("-".join(map(label, row.values())), row, {}) for row in rows]


def _rows(given: Any) -> list[Choice]:
    """`list`: rows with a name of their own, or that of their values."""
    if isinstance(given, Mapping):
        return [Choice(label(name), flat(row), {"list": name}) for name, row in given.items()]
    rows = [flat(row) for row in given]
    return [
        Choice("-".join(map(label, row.values())) or "base", row, {"list": number + 1})
        for number, row in enumerate(rows)
    ]


def _seeds(sheet: Sheet, base: Mapping[str, Any]) -> Sequence[int]:
    repeat = sheet.manifest.repeat
    if isinstance(repeat, int):
        if repeat < 1:
            raise sheet.fault("repeat", f"one seed at least is expected, given {repeat}")
        return range(base["seed"], base["seed"] + repeat)
    if not repeat:
        raise sheet.fault("repeat", "an empty list makes no run; say how many seeds, or which")
    if len(set(repeat)) < len(repeat):
        raise sheet.fault("repeat", f"a seed stands there twice: {repeat}")
    return repeat


def _check_settings(sheet: Sheet, axes: Axes) -> None:
    """Two axes that set the same thing, and settings that are not a manifest's to vary."""
    seen: dict[str, str] = {}
    for place, points in axes.items():
        listed = [points[0]] if isinstance(points, (Drawn, Seeds)) else points
        for setting in dict.fromkeys(key for point in listed for key in flat(nested(point.settings))):
            if (top := setting.split(".")[0]) in FIXED:
                raise sheet.fault(*place, f"{top} cannot vary: {FIXED[top]}")
            if sheet.manifest.halving and setting == "rounds":
                raise sheet.fault(*place, "rounds cannot vary with `halving`, whose rungs say how many there are")
            for other, where in seen.items():
                if (setting + ".").startswith(other + ".") or (other + ".").startswith(setting + "."):
                    raise sheet.fault(*place, f"{setting} is set by {where} already")
        seen |= {key: place[0] for point in listed for key in flat(nested(point.settings))}


def _check_count(sheet: Sheet, axes: Axes) -> None:
    count, limit = prod(map(len, axes.values())), sheet.manifest.limit
    if count > limit:
        factors = " × ".join(f"{len(points):,} ({'.'.join(map(str, place))})" for place, points in axes.items())
        place = max(axes, key=lambda place: len(axes[place]))
        raise sheet.fault(
            *place, f"the manifest makes {count:,} runs, {factors}; more than {limit:,} are taken for a mistake. If they "
            f"are meant, say `limit: {count}`"
        )  # fmt: skip
