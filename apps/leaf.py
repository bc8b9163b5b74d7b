"""Finds a leaf by name: the file `apps/<folder>/<name>.py`, a dotted module, or a file's path.

This is all there is of a plug-in system: adding a method is adding a file.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import ValidationError

from apps.records import MeritError, Options

HERE = Path(__file__).parent
NOT_LEAVES = {"__init__", "app"}
UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")  # of a model and of a dataclass, as pydantic calls it
OFFERS = {  # a folder -> what each of its leaves offers besides Options
    "tasks": ("load", "VERIFIER"),
    "topologies": ("play", "ROLES", "DUTIES"),
    "inference/engines": ("load",),
    "reward": ("verify", "check_gold"),
    "credit": ("assign", "asks"),
    "training/advantages": ("advantages",),
    "training/objectives": ("loss", "NEEDS"),
    "training/schedules": ("lineup",),
    "tools": ("use",),
}


def names(folder: str) -> list[str]:
    """The leaves of `apps/<folder>`: its modules that have `Options`, by name."""
    files = sorted((HERE / folder).glob("*.py"))
    return [f.stem for f in files if f.stem not in NOT_LEAVES and "class Options(" in f.read_text(encoding="utf-8")]


@cache  # a play looks its topology up each time it starts
def find(folder: str, name: str) -> ModuleType:
    """The module of a leaf. A typo is answered with the nearest name and the list."""
    module = _load(folder, name)
    if missing := [part for part in ("Options", *OFFERS.get(folder, ())) if not hasattr(module, part)]:
        raise MeritError(f"{folder}: {name} offers no {' and no '.join(missing)}; see docs/adding.md")
    return module


def _load(folder: str, name: str) -> ModuleType:
    if name in names(folder):
        return importlib.import_module(f"apps.{folder.replace('/', '.')}.{name}")
    if name.endswith(".py"):
        return _from_file(folder, Path(name))
    if "." in name:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise MeritError(f"{folder}: no module {name!r} can be imported ({error})") from error
    raise MeritError(unknown(folder, name, names(folder)))


def unknown(what: str, given: str, known: list[str]) -> str:
    """The message for a name that is none of `known`."""
    near = difflib.get_close_matches(given, known, 1, 0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{what}: there is no {given!r}{hint} (known: {', '.join(known) or 'none'})"


def no_file(what: str, path: Path) -> str:
    """The message for a Python file that is not there."""
    near = difflib.get_close_matches(str(path), map(str, sorted(path.parent.glob("*.py"))), 1)
    return f"{what}: no file {str(path)!r}" + (f"; did you mean {near[0]!r}?" if near else "")


def options(folder: str, section: dict[str, Any]) -> Options:
    """The `Options` of the leaf that `section["name"]` names, made from the section's other keys."""
    module = find(folder, section["name"])
    given = {key: value for key, value in section.items() if key != "name"}
    try:
        return module.Options(**given)
    except ValidationError as error:
        raise MeritError(explain(error, f"{folder}.{section['name']}", module.Options)) from error


def explain(error: ValidationError, where: str, kind: type[Options]) -> str:
    """A pydantic error of `kind` as one line for each fault: where, what was given, what was expected."""
    lines = []
    for fault in error.errors():
        path = [str(part) for part in fault["loc"]]
        place = ".".join(path)
        if fault["type"] in UNKNOWN:
            lines.append(
                unknown(f"{'.'.join([where, *path[:-1]])}: unknown key", path[-1], known_keys(kind, path[:-1]))
            )
        else:
            told = f"{place} = {fault['input']!r}: " if place else ""  # without a place it is about all of them
            lines.append(f"{where}: {told}{fault['msg'].removeprefix('Value error, ')}")
    return "\n".join(lines)


def known_keys(kind: Any, path: Sequence[str]) -> list[str]:
    """The keys of the section that lies at `path` in settings of this kind."""
    for part in path:
        kind = (
            kind.model_fields[part].annotation if hasattr(kind, "model_fields") and part in kind.model_fields else None
        )
        kind = next((a for a in getattr(kind, "__args__", ()) if hasattr(a, "model_fields")), kind)
    if hasattr(kind, "model_fields"):
        return list(kind.model_fields)
    return list(getattr(kind, "__dataclass_fields__", {}))


def summary(folder: str, name: str) -> str:
    """The first line of a leaf's docstring."""
    return (find(folder, name).__doc__ or "").strip().split("\n")[0]


def _from_file(folder: str, path: Path) -> ModuleType:
    if not path.is_file():
        raise MeritError(no_file(folder, path))
    name = "merit_leaf_" + path.resolve().as_posix().replace("/", "_").removesuffix(".py")
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (SyntaxError, ImportError) as error:
        del sys.modules[name]
        raise MeritError(f"{folder}: {path} cannot be imported: {error}") from error
    return module
