"""The file of planted faults: which teams play, how often their agents err by themselves, and what is planted in them.

`workflows/faults.yaml` is one, with remarks; a benchmark takes any other that is written like it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from apps import leaf, records
from apps.inference.engines import scripted
from apps.records import MeritError


class Case(records.Options):
    """A team, and what is planted in it; no faults, and it shows whom a method blames for nothing."""

    name: str = Field(description="in the tables", pattern=r"^\w[\w.-]*$")
    topology: dict[str, Any] = Field({"name": "solve_critique_revise"}, description="a topology and its options")
    normal: dict[str, dict[str, float | None]] = Field({}, description="role: {rate: chance} that differ from `usual`")
    faults: tuple[scripted.Fault, ...] = Field((), description="what is planted: {role, kind, rate, turn}")
    tasks: int = Field(8, ge=1, description="tasks of each seed")
    samples: int = Field(6, ge=1, description="plays of each task: the group that credit is relative to")
    seeds: tuple[int, ...] = Field((0, 1), min_length=1, description="each plays other tasks with other luck")

    def engine(self, usual: scripted.Rates, faulty_base: bool = False) -> scripted.Options:
        """The scripted agents of this case. MeritError: a topology, role or rate that there is not."""
        topology = leaf.find("topologies", self.topology.get("name", ""))
        leaf.options("topologies", self.topology)
        rates = usual.model_dump()
        duties = dict(topology.DUTIES)
        try:
            return scripted.Options(
                **rates, roles=self.normal, faults=self.faults, duties=duties, faulty_base=faulty_base
            )
        except ValidationError as error:
            raise MeritError(_told(error, f"case {self.name!r}", scripted.Options)) from error


class File(records.Options):
    """A whole file; what stands at its top holds for every case that says nothing else."""

    usual: scripted.Rates = Field(scripted.Rates(), description="chances of each duty's errors")
    tasks: int = Field(8, ge=1, description="tasks of each seed")
    samples: int = Field(6, ge=1, description="plays of each task")
    seeds: tuple[int, ...] = Field((0, 1), min_length=1, description="of each case")
    cases: tuple[Case, ...] = Field(min_length=1, description="the teams")


def read(path: str | Path) -> File:
    """A file of cases, checked to the last name. MeritError: what is wrong, and where."""
    place = Path(path).expanduser()
    if not place.is_file():
        raise MeritError(f"faults={path}: there is no such file; workflows/faults.yaml is one to start from")
    try:
        given = yaml.safe_load(place.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise MeritError(f"faults={path}: no valid YAML: {error}") from error
    if not isinstance(given, dict) or not isinstance(given.get("cases"), list):
        raise MeritError(f"faults={path}: a mapping with a list of `cases` is expected, as in workflows/faults.yaml")
    return checked(given, f"faults={path}")


def checked(given: dict[str, Any], where: str) -> File:
    """The typed file; defaults of its top are put into every case."""
    top = {key: given[key] for key in ("tasks", "samples", "seeds") if key in given}
    cases = [{**top, **case} if isinstance(case, dict) else case for case in given["cases"]]
    try:
        file = File(**{**given, "cases": cases})
    except ValidationError as error:
        raise MeritError(_told(error, where, File, cases)) from error
    names = [case.name for case in file.cases]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise MeritError(f"{where}: two cases are named {twice[0]!r}; their results would be one")
    for case in file.cases:
        case.engine(file.usual)
    return file


def _told(error: ValidationError, where: str, kind: type, cases: Any = ()) -> str:
    """A line for each fault: its place, with the case's name, and the nearest known key or kind."""
    lines = []
    for fault in error.errors():
        path = list(fault["loc"])
        if path == ["cases"] and cases:  # none is left once those with faults are out, and those are told
            continue
        place = f"{where}: {_place(path, cases)}".rstrip(": ")
        if fault["type"] == "extra_forbidden":
            lines.append(
                leaf.unknown(f"{place.rpartition('.')[0] or where}: key", str(path[-1]), _keys(kind, path[:-1]))
            )
        elif fault["type"] == "literal_error" and path[-1] == "kind":
            lines.append(leaf.unknown(place, str(fault["input"]), list(scripted.KINDS)))
        else:
            lines.append(
                f"{place} = {fault['input']!r}: {fault['msg'].removeprefix('Value error, ')}"
                if path
                else f"{where}: {fault['msg'].removeprefix('Value error, ')}"
            )
    return "\n".join(dict.fromkeys(lines))


def _place(path: list[Any], cases: Any) -> str:
    if path[:1] == ["cases"] and len(path) > 1 and isinstance(cases[path[1]], dict):
        path = [f"case {cases[path[1]].get('name', path[1])!r}", *path[2:]]
    return ".".join(map(str, path))


def _keys(kind: Any, path: list[Any]) -> list[str]:
    """The keys that a part of the file may have."""
    known = {"cases": Case, "usual": scripted.Rates, "faults": scripted.Fault}
    named = [known[part] for part in path if part in known]
    return list((named[-1] if named else kind).model_fields)
