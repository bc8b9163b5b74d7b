"""A study as a YAML file: which runs it is made of, and how they are carried out. docs/sweeps.md has an example.

Only what may be written; which runs come of it is in expand.py, how they are carried out in sweep.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, ValidationError, model_validator

from apps import leaf, records
from apps.records import MeritError
from workflows.study import places
from workflows.study.places import Source

LIMIT = 1000
MANY = 10**15  # what can be counted at all
NAME = r"^(\w[\w.-]*)?$"
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Pair = tuple[float, float]


class Draw(records.Options):
    """What one setting is drawn from: one of these."""

    uniform: Pair | None = Field(None, description="[low, high]: any number between")
    log_uniform: Pair | None = Field(None, description="[low, high], above 0: its logarithm is uniform")
    integers: tuple[int, int] | None = Field(None, description="[low, high]: a whole number, both ends included")
    choice: list[Any] | None = Field(None, description="a list: any of these", min_length=1)

    @model_validator(mode="after")
    def _one(self) -> Draw:
        given = self.model_dump(exclude_none=True)
        if len(given) != 1:
            raise ValueError("one of uniform, log_uniform, integers or choice is expected")
        (kind, values) = next(iter(given.items()))
        if kind != "choice" and not values[0] < values[1]:
            raise ValueError(f"{kind} wants [low, high] with low < high; given {list(values)}")
        if kind == "log_uniform" and values[0] <= 0:
            raise ValueError(f"log_uniform wants numbers above 0; given {list(values)}")
        return self


class Random(records.Options):
    """Settings drawn at random. A draw depends on the seed, its number and the setting's name, and on nothing else."""

    draws: int = Field(ge=1, le=MANY, description="how many rows of settings are drawn")
    seed: int = Field(0, description="of the draws; the runs' own seeds are `repeat`")
    settings: dict[str, Draw] = Field(
        min_length=1, description="setting: {uniform | log_uniform | integers | choice: …}"
    )


class Halving(records.Options):
    """Successive halving in synchronous rungs (arXiv 1502.07816, section 3; `eta` as in arXiv 1603.06560, algorithm 1)."""

    rungs: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        min_length=2, description="rounds that a run has had in all when a rung is decided; the last one is a whole run"
    )
    eta: float = Field(2, gt=1, description="one configuration in `eta` goes on from each rung (starting point: 2)")

    @model_validator(mode="after")
    def _rising(self) -> Halving:
        if list(self.rungs) != sorted(set(self.rungs)):
            raise ValueError(f"rungs are rounds in all, so they rise; given {list(self.rungs)}")
        return self


class Manifest(records.Options):
    """All that a manifest may say."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    name: str = Field("", pattern=NAME, description="of the study and its folder; default: the file's stem")
    workflow: str = Field("post_train", description="what each run is")
    config: str = Field("", description="a YAML file of settings below `base`; a path relative to the manifest")
    base: dict[str, Any] = Field({}, description="settings of every run")
    grid: dict[str, Any] = Field({}, description="setting: [values]; every combination")
    side_by_side: dict[str, Any] = Field(
        {}, alias="zip", description="setting: [values]; the first of all, the second …"
    )
    rows: list[dict[str, Any]] | dict[str, dict[str, Any]] = Field(
        [], alias="list", description="settings row by row; or name: settings"
    )
    random: Random | None = Field(None, description="settings drawn at random")
    exclude: list[dict[str, Any]] = Field([], description="runs with all of these settings are left out")
    repeat: Annotated[int, Field(le=MANY)] | list[Seed] = Field(
        1, description="seeds of every configuration: how many, or which"
    )
    names: str = Field(
        "", description="template of the runs' names, with {settings}; default: what varies, and the seed"
    )
    at_once: int = Field(0, ge=0, description="runs at work at the same time; 0 = all")
    limit: int = Field(LIMIT, ge=1, description="more runs than this are taken for a mistake")
    halving: Halving | None = Field(None, description="successive halving; default: every run is carried out whole")
    figures: dict[str, str] = Field(
        {}, description="column of the table: place in summary.json, as in accuracy.greedy.p"
    )


KEYS = [field.alias or name for name, field in Manifest.model_fields.items()]


@dataclass(frozen=True, slots=True)
class Sheet:
    """A manifest and where it was written."""

    manifest: Manifest
    source: Source

    def fault(self, *place_and_text: Any) -> MeritError:
        *place, text = place_and_text
        return self.source.fault(place, text)


def read(file: Path) -> Sheet:
    return _checked(*places.read(file, "--manifest"))


def parse(text: str, name: str = "manifest") -> Sheet:
    return _checked(*places.parse(text, name))


def _checked(given: Mapping[str, Any], source: Source) -> Sheet:
    for key in given:
        if key not in KEYS:
            raise source.fault((key,), leaf.unknown("manifest", str(key), KEYS))
    try:
        return Sheet(Manifest(**given), source)
    except ValidationError as error:
        raise _explained(error, source) from error


def _explained(error: ValidationError, source: Source) -> MeritError:
    """Each fault with its line. Of a value that may be of several types only the first type's complaint is told."""
    told: dict[tuple[Any, ...], str] = {}
    for fault in error.errors():
        place = _place(fault["loc"], source)
        text = fault["msg"].removeprefix("Value error, ")
        if fault["type"] in leaf.UNKNOWN:
            kind = {"random": Draw if len(place) > 2 else Random, "halving": Halving}.get(place[0], Manifest)
            text = leaf.unknown("key", str(place[-1]), leaf.known_keys(kind, ()))
        elif isinstance(fault["input"], (str, int, float)):
            text = f"{text}; given {fault['input']!r}"
        told.setdefault(place, str(source.fault(place, text)))
    return MeritError("\n".join(told.values()))


def _place(loc: tuple[Any, ...], source: Source) -> tuple[Any, ...]:
    """What of a fault's path stands in the file; pydantic puts names of types in between."""
    place: tuple[Any, ...] = ()
    for part in loc:
        if (*place, part) in source.lines or (part == loc[-1] and str(part).isidentifier()):
            place = (*place, part)
    return place
