"""Any task family of the reasoning-gym library (arXiv 2505.24760), Countdown among them, made by its own generators.

Graded by that library's own scorer (apps/reward/reasoning_gym.py). For that a task's `subject` is the family's name,
and its `solution` is no worked solution but JSON: {"config": the family's settings, "entry": what it generated}.
Where the library has no answer of its own (graph_color, rubiks_cube, …), `answer` is "" and its scorer alone decides.
Each split has a seed of its own, and a question that occurs in test is never in validation, nor one of either in train.
The library is an extra: pip install 'merit[tasks]'.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic import Field

from apps import leaf, records
from apps.records import MeritError, Task

VERIFIER = "reasoning_gym"
SPLITS = ("test", "validation", "train")  # in this order, so that a larger train split leaves the test split as it was


class Options(records.Options):
    """What is generated."""

    dataset: str = Field("countdown", description="name of the library's task family")
    config: dict[str, Any] = Field({}, description="the family's own settings, as the library names them")
    train: int = Field(1000, ge=1, description="problems in the train split")
    validation: int = Field(200, ge=1, description="problems in the validation split")
    test: int = Field(200, ge=1, description="problems in the test split")
    seed: int = Field(0, description="seed of the generator")


def load(split: str, options: Options) -> list[Task]:
    """The tasks of a split; no question occurs twice, in it or in another."""
    if split not in SPLITS:
        raise MeritError(leaf.unknown("reasoning_gym: splits", split, sorted(SPLITS)))
    taken: set[str] = set()
    for name in SPLITS[: SPLITS.index(split)]:
        taken |= draw(name, options, taken).keys()
    return [task(entry, split, options) for entry in draw(split, options, taken).values()]


def draw(split: str, options: Options, taken: set[str]) -> dict[str, dict]:
    """Question → entry, as many as the split is to have, none of them in `taken`."""
    wanted = getattr(options, split)
    entries: dict[str, dict] = {}
    for entry in generate(split, options, 4 * wanted + 100):
        if entry["question"] not in taken:
            entries.setdefault(entry["question"], entry)
        if len(entries) == wanted:
            return entries
    raise MeritError(
        f"reasoning_gym: only {len(entries)} different {split} questions of {options.dataset!r} were found, "
        f"tasks.{split}={wanted} were asked for; ask for fewer or make tasks.config harder"
    )


def generate(split: str, options: Options, size: int) -> Iterator[dict]:
    """Entries from the library. Entry i is drawn with seed + i, so the splits' seeds lie far apart, by digest."""
    try:
        import reasoning_gym
        from reasoning_gym.factory import DATASETS
    except ImportError as error:
        raise MeritError("reasoning_gym: the library is not installed: pip install 'merit[tasks]'") from error
    if options.dataset not in DATASETS:
        raise MeritError(leaf.unknown("tasks.dataset", options.dataset, sorted(DATASETS)))
    seed = int(records.digest([options.dataset, options.seed, split])[:7], 16)
    try:
        yield from reasoning_gym.create_dataset(options.dataset, size=size, seed=seed, **options.config)
    except (TypeError, ValueError, AssertionError) as error:
        raise MeritError(
            f"reasoning_gym: {options.dataset!r} with tasks.config={options.config} fails: {error}"
        ) from error


def plain(value: Any) -> Any:
    """`value` as JSON keeps it, tuples marked {"tuple": […]}: some of the library's scorers tell them from lists."""
    if isinstance(value, tuple):
        return {"tuple": [plain(part) for part in value]}
    if isinstance(value, list):
        return [plain(part) for part in value]
    return {key: plain(part) for key, part in value.items()} if isinstance(value, dict) else value


def task(entry: dict, split: str, options: Options) -> Task:
    """An entry as a task."""
    try:
        made = json.dumps({"config": options.config, "entry": plain(entry)}, sort_keys=True)
    except TypeError as error:
        raise MeritError(
            f"reasoning_gym: {options.dataset!r} makes entries that are not plain JSON ({error})"
        ) from error
    question = entry["question"]
    answer = str(entry["answer"] if entry["answer"] is not None else "")
    name = f"reasoning_gym-{options.dataset}-{records.digest(question)[:16]}"
    return Task(name, question, answer, "reasoning_gym", split, solution=made, subject=options.dataset)
