"""The corpora that the embedded model is made from: what each role says, with care or by habit.

Three kinds of text, all over train-split problems only:

- `plain`     sums, comparisons and worked stories, for next-token training;
- `careful`   role-format examples in which every role does its work (the solver with an occasional slip);
- `habits`    the same, with bad habits in the majority for every role, as a model from the web has them:
              solvers that guess, critics that wave through or cry wolf, revisers that copy or break,
              verifiers that misread.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import Field

from apps import records
from apps.tasks import arithmetic
from apps.tasks.arithmetic import Problem

ROLES = {"solver": 3, "critic": 4, "reviser": 3, "verifier": 1}  # shares: reading an answer out is soon learnt
DRILLS = 0.1  # share of drills among the role-format examples
PEN_SLIPS = (-10, -2, -1, 1, 2, 10)


class Options(records.Options):
    """What the corpus holds."""

    kind: str = Field("habits", pattern="^(plain|careful|habits)$", description="plain, careful or habits")
    examples: int = Field(100_000, ge=1, description="number of examples")
    levels: tuple[int, ...] = Field((1, 2, 3, 4, 5), description="numbers of operations")
    seed: int = Field(0, description="seed of the generator")
    careful: dict[str, float] = Field(
        {"solver": 0.4, "critic": 0.4, "reviser": 0.4, "verifier": 0.4},
        description="share of careful examples of each role in `habits`",
    )
    slip: float = Field(0.03, ge=0, le=1, description="chance of a wrong total at a step of a careful solver")
    check_slip: float = Field(0.003, ge=0, le=1, description="the same for critics and revisers")
    blind_slip: float = Field(0.0, ge=0, le=1, description="the same for a reviser that was told a bare verdict")
    spelled: bool = Field(True, description="critics compare their answer with the given one digit by digit")
    right_drafts: float = Field(0.5, ge=0, le=1, description="share of drafts with a right answer that others see")


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt's fields and the completion to learn. `role` is "" for plain text."""

    role: str
    fields: dict[str, str]  # what the role's prompt template is filled with
    completion: str


def generate(options: Options) -> Iterator[Example]:
    """The corpus, in a fixed order for a seed."""
    rng = random.Random(f"corpus/{options.kind}/{options.seed}")
    for _ in range(options.examples):
        yield plain(rng, options) if options.kind == "plain" else example(rng, options)


def plain(rng: random.Random, options: Options) -> Example:
    """A worked story, or a drill: a line of single sums, or of comparisons."""
    if rng.random() < 0.5:
        problem = arithmetic.draw_from(rng, rng.choice(options.levels), "train")
        return Example("", {}, f"{arithmetic.tell(problem, rng)} {solved(problem.totals, problem)}")
    if rng.random() < 0.5:
        return comparisons(rng, options.spelled)
    return Example("", {}, ". ".join(arithmetic.work(arithmetic.draw(rng, 1)) for _ in range(6)) + ".")


def comparisons(rng: random.Random, spelled: bool) -> Example:
    """A drill in telling numbers apart that differ little: the step at which a critic fails first."""
    lines = []
    for _ in range(6):
        found = rng.randint(1, arithmetic.LARGEST)
        given = found if rng.random() < 0.5 else near(found, rng)
        lines.append(compared(found, given, spelled))
    return Example("", {}, ". ".join(lines))


def compared(found: int, given: int, spelled: bool) -> str:
    """Two numbers and whether they are the same. `spelled` goes digit by digit up to the first difference."""
    verdict = f"VERDICT: {'CORRECT' if found == given else 'INCORRECT'}"
    if not spelled:
        return f"Found {found}, given {given}. {verdict}"
    pairs = list(zip(f"{found:02}", f"{given:02}", strict=True))
    looked_at = pairs[:1] if pairs[0][0] != pairs[0][1] else pairs
    digits = [f"{a} {b} {'CORRECT' if a == b else 'INCORRECT'}" for a, b in looked_at]
    return f"Found {found}, given {given}: {', '.join(digits)}. {verdict}"


def example(rng: random.Random, options: Options) -> Example:
    """One example of a random role, or now and then a drill."""
    if rng.random() < DRILLS:
        return comparisons(rng, options.spelled)
    problem = arithmetic.draw_from(rng, rng.choice(options.levels), "train")
    (role,) = rng.choices(list(ROLES), list(ROLES.values()))
    careful = options.kind == "careful" or rng.random() < options.careful[role]
    fields = {"question": arithmetic.tell(problem, rng)}
    if role == "solver":
        return Example(role, fields, solve(problem, rng, careful, options.slip))
    fields["draft"], given, prior = draft(problem, rng, options)
    if role == "critic":
        return Example(role, fields, critique(problem, given, rng, careful, options))
    if role == "reviser":
        checked = rng.random() < 0.5
        fields["review"] = critique(problem, given, rng, checked, options, flag=True)
        slip = options.check_slip if checked else max(options.check_slip, options.blind_slip)
        return Example(role, fields, revise(problem, given, rng, careful, slip))
    return Example(role, fields, report(given, prior, rng, careful))


def solved(totals: tuple[int, ...], problem: Problem) -> str:
    return f"{arithmetic.work(problem, totals)}. ANSWER: {totals[-1]}"


def slipped(problem: Problem, rng: random.Random, slip: float) -> tuple[int, ...]:
    """The running totals of somebody who errs with chance `slip` at each step and works on from there."""
    while True:
        totals = [problem.start]
        for operation, operand in problem.steps:
            total = arithmetic.apply(operation, totals[-1], operand)
            totals.append(total + rng.choice(PEN_SLIPS) if rng.random() < slip else total)
        if all(1 <= total <= arithmetic.LARGEST for total in totals):
            return tuple(totals)


def near(number: int, rng: random.Random) -> int:
    """A wrong number close to `number` (itself in range), as a slip of the pen makes it."""
    return rng.choice([number + slip for slip in PEN_SLIPS if 1 <= number + slip <= arithmetic.LARGEST])


def guess(problem: Problem, rng: random.Random) -> int:
    """An answer without work: seldom right, often a total on the way."""
    lot = rng.random()
    if lot < 0.1:
        return problem.totals[-1]
    return near(problem.totals[-1], rng) if lot < 0.6 else rng.choice(problem.totals[:-1])


def solve(problem: Problem, rng: random.Random, careful: bool, slip: float) -> str:
    """Step by step, or a bare guess."""
    return solved(slipped(problem, rng, slip), problem) if careful else f"ANSWER: {guess(problem, rng)}"


def draft(problem: Problem, rng: random.Random, options: Options) -> tuple[str, int, int]:
    """A solver's text with its answer and the total before it, right in a set share of cases."""
    wanted = rng.random() < options.right_drafts
    careful = rng.random() < 0.6
    while True:
        if careful:
            totals = slipped(problem, rng, 0.0 if wanted else 0.3)
            text, answer, prior = solved(totals, problem), totals[-1], totals[-2]
        else:
            answer = problem.totals[-1] if wanted else guess(problem, rng)
            text, prior = f"ANSWER: {answer}", near(answer, rng)
        if (answer == problem.totals[-1]) == wanted:
            return text, answer, prior


def critique(
    problem: Problem, given: int, rng: random.Random, careful: bool, options: Options, flag: bool | None = None
) -> str:
    """Works it out again and compares; or a verdict without a look. `flag` makes a careless verdict INCORRECT."""
    if careful:
        totals = slipped(problem, rng, options.check_slip)
        return f"Check: {arithmetic.work(problem, totals)}. {compared(totals[-1], given, options.spelled)}"
    wave_through = not flag and rng.random() < 0.55
    return "VERDICT: CORRECT" if wave_through else "VERDICT: INCORRECT"


def revise(problem: Problem, given: int, rng: random.Random, careful: bool, slip: float) -> str:
    """Works it out again; or repeats the draft's answer; or breaks it."""
    if careful:
        return solved(slipped(problem, rng, slip), problem)
    return f"ANSWER: {given if rng.random() < 0.5 else near(given, rng)}"


def report(given: int, prior: int, rng: random.Random, careful: bool) -> str:
    """Reads the final answer out; or reads another number than the last."""
    if careful:
        return f"The final answer reads {given}. ANSWER: {given}"
    lot = rng.random()
    return f"ANSWER: {given if lot < 0.15 else prior if lot < 0.75 else near(given, rng)}"
