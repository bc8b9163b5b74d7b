"""Rows of a published data set: read from a file, a folder or the hub, and divided into splits that never leak.

What the families gsm8k, math, multiple_choice and jsonl share; not a family itself. A folder holds one file a split
("train.jsonl", "test-00000-of-00001.parquet", …); a single file is the split that its name begins with, else a pool.

The splits train, validation and test, where only some are given:
- no validation: the tenth of train whose question's digest ends so;
- only one split or a pool: without `carve` an error for the others, with it 80/10/10 by the digest;
- no test but validation (CommonsenseQA publishes no test answers): with `carve` validation serves as test.
A question that occurs twice is kept once: the first of its split, and test before validation before train.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import Field

from apps import leaf, records
from apps.records import MeritError, Task

SPLITS = ("train", "validation", "test")
NAMES = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}
POOL = "rows without a split"
ENDINGS = (".jsonl", ".json", ".parquet", ".csv")
Row = dict[str, Any]


class FileOptions(records.Options):
    """Where rows come from; each family adds its own."""

    path: str = Field(
        "", description="a .jsonl, .json, .parquet or .csv file, or a folder with one a split; empty = the hub"
    )
    hub: str = Field("", description="name of the data set on the Hugging Face hub, for an empty path")
    hub_config: str = Field("", description="which configuration of that data set, where it has several")
    carve: bool = Field(False, description="cut splits that are missing from those that are given")
    limit: int = Field(0, ge=0, description="at most so many tasks of a split, chosen by digest; 0 = all")


def load(family: str, split: str, options: FileOptions, make: Callable[[Row, str], Task | None]) -> list[Task]:
    """The tasks of a split, in the order of their ids. `make` turns (row, split) into a task; None leaves the row out.

    The order is that of a digest of the questions: any number of tasks from the start is a fair sample.
    """
    if split not in SPLITS:
        raise MeritError(leaf.unknown(f"{family}: splits", split, list(SPLITS)))
    given = {name: [task for row in rows if (task := make(row, split))] for name, rows in read(family, options).items()}
    tasks = divide(
        {name: tasks for name, tasks in given.items() if tasks}, split, options.carve, f"{family}: {origin(options)}"
    )
    return sorted(tasks, key=lambda task: task.id)[: options.limit or None]


def identify(family: str, question: str) -> str:
    """The stable id of a question: the same in every run, whatever file and place it was read from."""
    return f"{family}-{records.digest(question)[:16]}"


def tenth(task: Task) -> int:
    """0..9, by the question alone: equal questions always fall on the same side of a cut."""
    return int(records.digest(["split", task.question])[:8], 16) % 10


def divide(given: dict[str, list[Task]], split: str, carve: bool, where: str) -> list[Task]:
    """The tasks of `split`, out of the splits that are given."""
    taken: set[str] = set()
    whole = arrange(given, carve)
    for name in ("test", "validation", "train"):
        fresh = {task.question: task for task in reversed(whole.get(name, [])) if task.question not in taken}
        if name == split:
            break
        taken |= fresh.keys()
    if not fresh:
        remedy = "" if carve else "; tasks.carve=true cuts the missing ones by a digest of the question"
        raise MeritError(
            f"{where} has no {split} tasks, {'only ' + ', '.join(given) if given else 'and no usable rows'}{remedy}"
        )
    return list(reversed(fresh.values()))


def arrange(given: dict[str, list[Task]], carve: bool) -> dict[str, list[Task]]:
    """The three splits, those that are missing cut from the others as the head of this file says."""
    if carve and len(given) == 1:
        (pool,) = given.values()
        cut = {0: "test", 1: "validation"}
        return {name: [task for task in pool if cut.get(tenth(task), "train") == name] for name in SPLITS}
    if carve and "test" not in given and "validation" in given:
        given = {"train": given.get("train", []), "test": given["validation"]}
    if "validation" not in given and "train" in given:
        validation = [task for task in given["train"] if tenth(task) == 1]
        return given | {"validation": validation, "train": [task for task in given["train"] if tenth(task) != 1]}
    return given


def origin(options: FileOptions) -> str:
    return f"tasks.path={options.path}" if options.path else f"the hub's {options.hub}"


def read(family: str, options: FileOptions) -> dict[str, list[Row]]:
    """Split or POOL → rows."""
    if not options.path:
        return from_hub(family, options)
    path = Path(options.path).expanduser()
    if path.is_file():
        return {split_of(path): rows_of(path)}
    if not path.is_dir():
        near = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise MeritError(
            f"{family}: {leaf.unknown('tasks.path', str(path), [str(path.parent / name) for name in sorted(near)])}"
        )
    rows: dict[str, list[Row]] = {}
    for file in sorted(file for file in path.iterdir() if file.suffix in ENDINGS and split_of(file) != POOL):
        rows.setdefault(split_of(file), []).extend(rows_of(file))
    if not rows:
        raise MeritError(
            f"{family}: no file in tasks.path={path} is named train, validation or test (…{', …'.join(ENDINGS)})"
        )
    return rows


def split_of(path: Path) -> str:
    """The split that a file's name begins with."""
    return NAMES.get(path.name.replace("-", ".").replace("_", ".").split(".")[0].lower(), POOL)


def rows_of(path: Path) -> list[Row]:
    """The rows of one file."""
    if path.suffix not in ENDINGS:
        raise MeritError(
            f"tasks.path={path}: cannot read {path.suffix or 'a file without ending'}; one of {', '.join(ENDINGS)}"
        )
    try:
        rows = READERS[path.suffix](path)
    except (ValueError, OSError) as error:
        raise MeritError(f"tasks.path={path}: cannot be read: {error}") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise MeritError(f"tasks.path={path}: expected a list of rows with named columns")
    return rows


def jsonl_rows(path: Path) -> list[Row]:
    rows = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                rows += [json.loads(line)] if line.strip() else []
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from error
    return rows


def json_rows(path: Path) -> list[Row]:
    return json.loads(path.read_text(encoding="utf-8"))


def csv_rows(path: Path) -> list[Row]:
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def parquet_rows(path: Path) -> list[Row]:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise MeritError(f"tasks.path={path}: parquet needs the extra: pip install 'merit[tasks]'") from error
    return pyarrow.parquet.read_table(path).to_pylist()


READERS = dict(zip(ENDINGS, (jsonl_rows, json_rows, parquet_rows, csv_rows), strict=True))


def from_hub(family: str, options: FileOptions) -> dict[str, list[Row]]:
    """All splits of a data set on the hub. Any failure (no network, no such name) names tasks.path as the remedy."""
    remedy = "; give the files by tasks.path=FOLDER (train.jsonl, test.jsonl, …)"
    if not options.hub:
        raise MeritError(f"{family}: neither tasks.path nor tasks.hub is set{remedy}")
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise MeritError(f"{family}: the hub needs the extra (pip install 'merit[tasks]'){remedy}") from error
    try:
        splits = load_dataset(options.hub, options.hub_config or None)
    except Exception as error:  # the library raises a dozen unrelated kinds
        first = str(error).strip().split("\n")[0][:200]
        raise MeritError(f"{family}: {options.hub!r} could not be loaded from the hub ({first}){remedy}") from error
    rows: dict[str, list[Row]] = {}
    for name, part in splits.items():
        rows.setdefault(NAMES.get(name, POOL), []).extend(part.to_list())
    return rows


def column(row: Row, *names: str, where: str) -> Any:
    """The first of the columns `names` that a row has."""
    for name in names:
        if row.get(name) is not None:
            return row[name]
    raise MeritError(leaf.unknown(f"{where}: columns", names[0], list(row)))
