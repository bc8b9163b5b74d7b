"""A YAML file whose faults are told with their line, and in which no key may stand twice.

Plain YAML lets the second of two equal keys win in silence; in a study that would be a run that was never made.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from apps.records import MeritError

Place = tuple[Any, ...]  # keys and positions from the top: ("exclude", 0, "credit.name")


@dataclass(frozen=True, slots=True)
class Source:
    """Where settings came from."""

    name: str  # of the file, as it was given
    lines: dict[Place, int] = field(default_factory=dict)  # counted from 1

    def fault(self, place: Sequence[Any], text: str) -> MeritError:
        """The error for what stands at `place`, or should stand there."""
        known = next((place[:n] for n in range(len(place), 0, -1) if tuple(place[:n]) in self.lines), None)
        line = f", line {self.lines[tuple(known)]}" if known else ""
        return MeritError(f"{self.name}{line}: {dotted(place)}{': ' if place else ''}{text}")


def dotted(place: Sequence[Any]) -> str:
    """("exclude", 0, "seed") as "exclude[0].seed"."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in place]
    return "".join(parts).removeprefix(".")


def read(file: Path, option: str) -> tuple[dict[str, Any], Source]:
    """A mapping and where its parts stand. `option` of the command is named where there is no such file."""
    if not file.is_file():
        raise MeritError(f"{option}: there is no file {str(file)!r}")
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise MeritError(f"{file}: no text in UTF-8: {error}") from error
    return parse(text, str(file))


def parse(text: str, name: str) -> tuple[dict[str, Any], Source]:
    """The same of a text."""
    source = Source(name)
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            what = "nothing" if node is None else node.tag.rpartition(":")[2]
            raise MeritError(f"{name}: a mapping of keys to values is expected, this is {what}")
        _walk(node, (), source, loader)
        return loader.construct_document(node), source
    except yaml.YAMLError as error:
        raise MeritError(f"{name}: no valid YAML: {error}") from error


def _walk(node: yaml.Node, place: Place, source: Source, loader: yaml.SafeLoader) -> None:
    """Notes the line of everything below `node`; a key that was there already is a fault."""
    if isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            source.lines[(*place, number)] = item.start_mark.line + 1
            _walk(item, (*place, number), source, loader)
    if isinstance(node, yaml.MappingNode):
        for named, item in node.value:
            key = loader.construct_object(named, deep=True)
            here = (*place, key if isinstance(key, Hashable) else str(key))
            line = named.start_mark.line + 1
            if here in source.lines:
                first = source.lines[here]
                raise source.fault(place, f"the key {key!r} stands there twice, in line {first} and in line {line}")
            source.lines[here] = line
            _walk(item, here, source, loader)
