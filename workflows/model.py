"""Which model a run starts from, and a digest of its files that goes into the keys in place of its path."""

from __future__ import annotations

import hashlib
from pathlib import Path

from apps.records import MeritError, digest

EMBEDDED = Path(__file__).resolve().parents[1] / "apps" / "data" / "embedded"
CHUNK = 1 << 22  # bytes


def locate(name: str) -> Path:
    """The folder of a model: `embedded`, or a path."""
    folder = EMBEDDED if name == "embedded" else Path(name).expanduser()
    if not (folder / "config.json").is_file():
        raise MeritError(
            f"model={name}: there is no Hugging Face model folder {str(folder)!r} (a config.json is looked for); "
            f"give the path of one, or `embedded`"
        )
    return folder.resolve()


def identity(name: str) -> str:
    """A digest of the model's files."""
    return fingerprint(str(locate(name)))


def fingerprint(path: str) -> str:
    """A digest of a file's or a folder's contents; "" for no path or none that exists."""
    place = Path(path).expanduser()
    if not path or not place.exists():
        return ""
    files = sorted(f for f in place.rglob("*") if f.is_file() and f.suffix != ".md") if place.is_dir() else [place]
    return digest([[f.relative_to(place).as_posix(), _digest(f)] for f in files])


def _digest(file: Path) -> str:
    sha = hashlib.sha256()
    with open(file, "rb") as opened:
        while chunk := opened.read(CHUNK):
            sha.update(chunk)
    return sha.hexdigest()
