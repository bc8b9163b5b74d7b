"""Worded arithmetic in a few steps: the embedded task, made by a seeded generator.

A problem is a starting number and a chain of operations told as a little story. Its difficulty (*level*)
is the number of operations. Every number on the way lies in 1..99. The split of a problem is a digest of its numbers
and operations, not of its words, so two splits can never share a problem, whatever their seeds and sizes.

Left out on purpose: units, fractions, distractors. A model of a million parameters has to be able to learn it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from apps import records
from apps.records import MeritError, Task

VERIFIER = "exact_number"
SPLITS = ("train", "validation", "test")

NAMES = ("Mia", "Tom", "Ana", "Ben", "Eva", "Max", "Zoe", "Leo")
ITEMS = ("shells", "coins", "cards", "books", "pens", "stones", "stamps", "beads")
PHRASES = {
    "+": ("finds {n} more", "buys {n} more", "gets {n} more"),
    "-": ("loses {n}", "sells {n}", "gives away {n}"),
    "x": ("makes it {n} times as many", "multiplies the pile by {n}"),
}
LARGEST, OPERANDS, FACTORS = 99, range(2, 13), (2, 3)


class Options(records.Options):
    """What is generated."""

    levels: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (3, 4, 5), min_length=1, description="numbers of operations, in equal shares"
    )
    train: int = Field(4000, ge=1, description="problems in the train split")
    validation: int = Field(500, ge=1, description="problems in the validation split")
    test: int = Field(500, ge=1, description="problems in the test split")
    seed: int = Field(0, description="seed of the generator")


@dataclass(frozen=True, slots=True)
class Problem:
    """The numbers of a problem, without words."""

    start: int
    steps: tuple[tuple[str, int], ...]  # (operation, operand)

    @property
    def totals(self) -> tuple[int, ...]:
        """The running total before any step and after each: n + 1 numbers."""
        totals = [self.start]
        for operation, operand in self.steps:
            totals.append(apply(operation, totals[-1], operand))
        return tuple(totals)

    @property
    def split(self) -> str:
        """80 % train, 10 % validation, 10 % test, by a digest of the numbers."""
        tenth = int(records.digest([self.start, self.steps])[:8], 16) % 10
        return {0: "test", 1: "validation"}.get(tenth, "train")


def apply(operation: str, total: int, operand: int) -> int:
    return {"+": total + operand, "-": total - operand, "x": total * operand}[operation]


def draw(rng: random.Random, level: int) -> Problem:
    """One problem of `level` steps whose totals all lie in 1..99."""
    start = total = rng.randint(2, 60)
    steps = []
    while len(steps) < level:
        operation = rng.choice("++--x")
        operand = rng.choice(FACTORS) if operation == "x" else rng.choice(OPERANDS)
        after = apply(operation, total, operand)
        if 1 <= after <= LARGEST:
            steps.append((operation, operand))
            total = after
    return Problem(start, tuple(steps))


def draw_from(rng: random.Random, level: int, split: str) -> Problem:
    """One problem of `level` steps that belongs to `split`."""
    while True:
        problem = draw(rng, level)
        if problem.split == split:
            return problem


def tell(problem: Problem, rng: random.Random) -> str:
    """The problem as a story."""
    name, items = rng.choice(NAMES), rng.choice(ITEMS)
    story = [f"{name} has {problem.start} {items}."]
    story += [f"{name} {rng.choice(PHRASES[op]).format(n=n)}." for op, n in problem.steps]
    return " ".join(story) + f" How many {items} does {name} have now?"


def work(problem: Problem, totals: tuple[int, ...] | None = None) -> str:
    """The worked steps, "12; +7=19; -5=14": what a careful solution writes before its answer.

    `totals` may differ from the true ones: a worked solution with a slip in it.
    """
    totals = problem.totals if totals is None else totals
    steps = [f"{op}{n}={total}" for (op, n), total in zip(problem.steps, totals[1:], strict=True)]
    return "; ".join([str(totals[0]), *steps])


def load(split: str, options: Options) -> list[Task]:
    """The tasks of a split; no two of them share their numbers."""
    if split not in SPLITS:
        raise MeritError(f"arithmetic has no split {split!r}; it has {', '.join(SPLITS)}")
    rng = random.Random(f"arithmetic/{options.seed}/{split}")
    tasks: dict[str, Task] = {}
    wanted = getattr(options, split)
    attempts = 0
    while len(tasks) < wanted:
        attempts += 1
        if attempts > 50 * wanted + 1000:
            raise MeritError(
                f"arithmetic: only {len(tasks)} different {split} problems of levels {options.levels} were found, "
                f"tasks.{split}={wanted} were asked for; ask for fewer or add a higher level"
            )
        level = options.levels[len(tasks) % len(options.levels)]
        problem = draw_from(rng, level, split)
        question = tell(problem, rng)
        name = f"arithmetic-{split}-{records.digest([problem.start, problem.steps])[:12]}"
        tasks.setdefault(
            name,
            Task(
                name,
                question,
                str(problem.totals[-1]),
                "arithmetic",
                split,
                level,
                f"{work(problem)}. ANSWER: {problem.totals[-1]}",
            ),
        )
    return list(tasks.values())
