"""Which model a run starts from, and a digest of its files that goes into the keys in place of its path."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from apps import leaf, weights
from apps.records import MeritError, digest

EMBEDDED = Path(__file__).resolve().parents[1] / "apps" / "data" / "embedded"
CHUNK = 1 << 22  # bytes
FILES = ("path", "terms")  # settings that name training data
ASKING = {  # sections that may ask models besides the team, and the folder of their leaves
    "credit": "credit",
    "verifier": "reward",
    "judge": "",
    "reading": "",
}


def locate(name: str, setting: str = "model") -> Path:
    """The folder of a model: `embedded`, or a path. `setting` is named where there is no such thing."""
    folder = EMBEDDED if name == "embedded" else Path(name).expanduser()
    if not (folder / "config.json").is_file():
        raise MeritError(
            f"{setting}={name}: there is no Hugging Face model folder {str(folder)!r} (a config.json is looked for); "
            f"give the path of one, or `embedded`"
        )
    weights.check_model(folder, setting)
    return folder.resolve()


def identity(name: str, setting: str = "model") -> str:
    """A digest of the model's files."""
    return fingerprint(str(locate(name, setting)))


def layers(name: str) -> set[str]:
    """The full names of the layers that have a matrix of weights, read from the heads of the model's safetensors files."""
    found: set[str] = set()
    for file in locate(name).glob("*.safetensors"):
        matrices = [name for name, tensor in _head(file).items() if len(tensor.get("shape", ())) == 2]
        found |= {name.removesuffix(".weight") for name in matrices if name.endswith(".weight")}
    return found


def _head(file: Path) -> dict[str, Any]:
    """What a safetensors file says of its tensors: eight bytes of length, then JSON."""
    with open(file, "rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        try:
            return json.loads(opened.read(min(length, file.stat().st_size)))
        except ValueError as error:
            raise MeritError(f"model: {file} is no safetensors file (a pointer in place of the file?)") from error


def fingerprint(path: str, setting: str = "path") -> str:
    """A digest of a file's or a folder's contents; "" for no path. `setting` is named where there is no such thing."""
    if not path:
        return ""
    place = Path(path).expanduser()
    if not place.exists():
        beside = [str(place.parent / entry.name) for entry in place.parent.iterdir()] if place.parent.is_dir() else []
        near = difflib.get_close_matches(str(place), sorted(beside), 1)
        hint = f"; did you mean {near[0]!r}?" if near else f" (looked for in {Path.cwd()})" * (not place.is_absolute())
        raise MeritError(f"{setting}={path}: there is no such file or folder{hint}")
    files = sorted(f for f in place.rglob("*") if f.is_file() and f.suffix != ".md") if place.is_dir() else [place]
    return digest([[f.relative_to(place).as_posix(), _digest(f)] for f in files])


def keyed(section: Mapping[str, Any], setting: str = "credit") -> dict[str, Any]:
    """A section for a key: digests stand for the paths of the models that its leaf asks; `setting` is the section's name."""
    return {**section, **{name: mark for name, (mark, _) in _outside(section, setting).items()}}


def places(settings: Any) -> dict[str, str]:
    """Where models lie that sections, teams and teachers anywhere in `settings` name, and training data: digest -> path here."""
    if isinstance(settings, Sequence) and not isinstance(settings, str):
        return {digest: path for inner in settings for digest, path in places(inner).items()}
    found: dict[str, str] = {}
    for inner in settings if isinstance(settings, (list, tuple)) else ():  # the stages of a chain
        found |= places(inner)
    for name, inner in settings.items() if isinstance(settings, Mapping) else ():
        if name in ASKING and isinstance(inner, Mapping):
            found |= dict(_outside(inner, name).values())
        elif name in ("team", "teacher") and isinstance(inner, Mapping):
            named = [*inner.get("models", {}).values(), inner.get("model", "")]
            found |= {identity(given): str(locate(given)) for given in named if given}
        elif name in FILES and isinstance(inner, str) and inner:
            found[fingerprint(inner, name)] = str(Path(inner).expanduser().resolve())
        elif name != "tasks":  # a family of tasks is given its path itself
            found |= places(inner)
    return found


def _outside(section: Mapping[str, Any], setting: str) -> dict[str, tuple[str, str]]:
    """Setting -> (digest, path) of the adapter and of the base model that a section names, where its leaf asks models."""
    found = {}
    if setting == "verifier" and not (section.get("name") and hasattr(leaf.find("reward", section["name"]), "asked")):
        return found  # a verifier of the user's own may mean something else by these words
    if adapter := section.get("adapter"):
        found["adapter"] = (fingerprint(adapter, f"{setting}.adapter"), str(Path(adapter).expanduser().resolve()))
    if base := section.get("model"):
        found["model"] = (identity(base), str(locate(base)))
    return found


def _digest(file: Path) -> str:
    sha = hashlib.sha256()
    with open(file, "rb") as opened:
        while chunk := opened.read(CHUNK):
            sha.update(chunk)
    return sha.hexdigest()
