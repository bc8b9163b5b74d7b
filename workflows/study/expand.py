"""From a manifest to its runs. Pure: the same manifest gives the same runs in the same order, on any machine.

Each section is one axis or several, and the runs are all combinations of them: every setting of `grid` is an axis, so are `zip`, `list`,
the draws of `random` and the seeds of `repeat`. The last one changes fastest.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from apps import leaf, records
from workflows.config import overlay
from workflows.study.axes import Axes, Choice, axes, label
from workflows.study.dotted import Flat, flat, nested, sections
from workflows.study.manifest import NAME, Sheet


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the study."""

    name: str
    configuration: str  # the runs that differ in their seed alone share it
    seed: int
    settings: Flat  # what the manifest varies, the seed left out
    changes: dict[str, Any]  # the same nested and with the seed, to be laid over the base


def runs(sheet: Sheet, base: Mapping[str, Any]) -> list[Run]:
    """The runs in order. `base`: the settings below, defaults and all. Every fault of the manifest is told here."""
    found = axes(sheet, base)
    kept = _kept(sheet, [_combined(points, base) for points in product(*found.values())], found)
    labels = _labels(kept)
    named = [_run(sheet, one, labels) for one in kept]
    _check_names(sheet, named)
    return named


@dataclass(frozen=True, slots=True)
class Combined:
    """A run before it has a name."""

    points: tuple[Choice, ...]
    settings: Flat  # what varies, the seed with it
    resolved: dict[str, Any]  # over the base

    @property
    def fields(self) -> Flat:
        """Everything that can be named: settings and sections, and the fields of the points."""
        named = {key: value for point in self.points for key, value in point.fields.items()}
        return {**sections(self.resolved), **self.settings, **named}

    @property
    def key(self) -> str:
        """Equal for runs that differ in their seed alone."""
        return records.digest(sorted((k, repr(v)) for k, v in self.settings.items() if k != "seed"))

    @property
    def slug(self) -> str:
        return "-".join(point.label for point in self.points if "seed" not in point.settings)


def _combined(points: tuple[Choice, ...], base: Mapping[str, Any]) -> Combined:
    settings = {key: value for point in points for key, value in point.settings.items()}
    return Combined(points, settings, overlay(base, nested(settings)))


def _kept(sheet: Sheet, combined: list[Combined], varied: Axes) -> list[Combined]:
    """Without those that `exclude` names; an entry that leaves out nothing, or all, is a mistake."""
    kept = combined
    for number, entry in enumerate(sheet.manifest.exclude):
        wanted = flat(entry)
        if not wanted:
            raise sheet.fault("exclude", number, "settings are expected, this is empty")
        if not any(_matches(one.fields, wanted) for one in combined):
            known = sorted({key for one in combined for key in one.fields})
            strange = [key for key in wanted if key not in known]
            hint = f"; {leaf.unknown('setting', strange[0], sorted(_varied(varied)))}" if strange else ""
            raise sheet.fault("exclude", number, f"no run has {_told(wanted)}, so it leaves out nothing{hint}")
        kept = [one for one in kept if not _matches(one.fields, wanted)]
        if not kept:
            raise sheet.fault("exclude", number, f"{_told(wanted)}: with it none of {len(combined)} runs is left")
    return kept


def _varied(axes: Axes) -> set[str]:
    return {key for points in axes.values() for key in (*points[0].settings, *points[0].fields)}


def _told(settings: Flat) -> str:
    return ", ".join(f"{key}={value}" for key, value in settings.items())


def _matches(given: Flat, wanted: Flat) -> bool:
    """Every wanted setting has the value, or one of the values of a list."""
    return all(key in given and _equal(given[key], value) for key, value in wanted.items())


def _equal(given: Any, wanted: Any) -> bool:
    if isinstance(wanted, list) and not isinstance(given, (list, tuple)):
        return any(_equal(given, one) for one in wanted)
    if isinstance(given, (list, tuple)):
        return list(given) == wanted
    try:  # YAML takes 1e-3 for a word and 1.0e-3 for a number
        return float(given) == float(wanted)
    except (TypeError, ValueError):
        return given == wanted


def _labels(kept: Sequence[Combined]) -> dict[str, str]:
    """key -> the name of a configuration, each its own."""
    slugs = {one.key: one.slug or "run" for one in kept}
    counts, seen = Counter(slugs.values()), Counter()
    found = {}
    for key, slug in slugs.items():
        seen[slug] += 1
        found[key] = slug if counts[slug] == 1 else f"{slug}.{seen[slug]}"
    return found


def _run(sheet: Sheet, one: Combined, labels: Mapping[str, str]) -> Run:
    seeds = [point.label for point in one.points if "seed" in point.settings]
    usual = "-".join([one.slug or ("" if seeds else "run"), *seeds]).strip("-")
    name = _filled(sheet, one) if sheet.manifest.names else usual
    settings = {key: value for key, value in one.settings.items() if key != "seed"}
    rows = [point.fields["list"] for point in one.points if isinstance(point.fields.get("list"), str)]
    named = {"list": rows[0]} if rows else {}
    return Run(name, labels[one.key], one.resolved["seed"], named | settings, nested(one.settings))


def _filled(sheet: Sheet, one: Combined) -> str:
    """The template of names with its values."""
    template, fields = sheet.manifest.names, one.fields

    def value(found: re.Match[str]) -> str:
        key, _, form = found[1].partition(":")
        if key not in fields or fields[key] is None:
            raise sheet.fault("names", leaf.unknown(f"{{{key}}} has no value in a run: setting", key, _short(one)))
        try:
            return label(format(fields[key], form)) if form else label(fields[key])
        except (ValueError, TypeError) as error:
            raise sheet.fault("names", f"{{{found[1]}}}: {error}; the value is {fields[key]!r}") from error

    name = re.sub(r"\{([^{}]*)\}", value, template)
    if not name or not re.match(NAME, name):
        raise sheet.fault("names", f"{name!r} is no name of a folder: letters, digits, '_', '.' and '-' are expected")
    return name


def _short(one: Combined) -> list[str]:
    """What varies first, then the settings of the base."""
    varied = [*one.settings, *(key for point in one.points for key in point.fields)]
    return list(dict.fromkeys([*varied, "seed", *(key for key in one.fields if "." not in key)]))


def _check_names(sheet: Sheet, found: Sequence[Run]) -> None:
    seen: dict[str, Run] = {}
    for run in found:
        if (other := seen.get(run.name.lower())) is not None:
            apart = {k: v for k, v in flat(run.changes).items() if flat(other.changes).get(k, ...) != v}
            hint = f"they differ in {_told(apart)}; put it into `names`" if apart else "they are the same"
            raise sheet.fault("names", f"two runs would be called {run.name!r}: {hint}")
        seen[run.name.lower()] = run
