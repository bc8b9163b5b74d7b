"""Measures the embedded model role by role, on problems of the test split that no corpus holds.

Two modes: `habit` lets a role begin as it likes; `careful` puts the first word of a careful completion into its mouth, and so
measures what it can do, not what it tends to do.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from apps.answer import after, verdict
from apps.data import arithmetic_corpus as corpus
from apps.effects import Ask
from apps.inference.engine import Request
from apps.inference.engines import transformers
from apps.records import Policy, Sampling, Task
from apps.tasks import arithmetic
from apps.tasks.arithmetic import Problem

OPENING = {"solver": "{start}", "critic": "Check:", "reviser": "{start}", "verifier": "The"}


def assess(model: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """{role: {"careful greedy": share right, "careful sampled": …, "habit greedy": …, "habit sampled": …}}.

    A solver and a reviser are right if their answer is; a verifier if it reads what it was given; a critic by its balanced
    accuracy, on drafts of which half are right.
    """
    engine = transformers.load(str(model), transformers.Options(), "cpu")
    figures: dict[str, dict[str, float]] = {role: {} for role in corpus.ROLES}
    for role in corpus.ROLES:
        cases = _cases(role, options["problems"], tuple(options["levels"]))
        for mode in ("careful", "habit"):
            for name, temperature in (("greedy", 0.0), ("sampled", 1.0)):
                texts = _speak(engine, role, cases, mode, Sampling(temperature, 64), options["prompts"])
                figures[role][f"{mode} {name}"] = round(_right(role, texts, cases), 4)
    return figures


Case = tuple[Problem, dict[str, str], int]  # the problem, the prompt's fields, the answer that the draft gave


def _cases(role: str, count: int, levels: tuple[int, ...]) -> list[Case]:
    rng, settings = random.Random(f"assess/{role}"), corpus.Options()
    cases = []
    for _ in range(count):
        problem = arithmetic.draw_from(rng, rng.choice(levels), "test")
        draft, given, _ = corpus.draft(problem, rng, settings)
        review = corpus.critique(problem, given, rng, rng.random() < 0.5, settings, flag=True)
        cases.append((problem, {"question": arithmetic.tell(problem, rng), "draft": draft, "review": review}, given))
    return cases


def _speak(
    engine, role: str, cases: list[Case], mode: str, sampling: Sampling, prompts: Mapping[str, str]
) -> list[str]:
    requests, openings = [], []
    for seed, (problem, fields, _) in enumerate(cases):
        opening = OPENING[role].format(start=problem.start) if mode == "careful" else ""
        prompt, _ = engine.render("", prompts[role].format(**fields))
        ids = engine.encode(prompt + opening)
        task = Task("assess", fields["question"], str(problem.totals[-1]), "arithmetic", "test")
        requests.append(Request(Policy(role), prompt + opening, ids, sampling, seed, task, Ask(role, fields)))
        openings.append(opening)
    return [f"{opening} {said.text}" for opening, said in zip(openings, engine.generate(requests), strict=True)]


def _right(role: str, texts: list[str], cases: list[Case]) -> float:
    if role == "critic":
        flags = [
            (verdict(t) is (g == p.totals[-1]), g == p.totals[-1]) for t, (p, _, g) in zip(texts, cases, strict=True)
        ]
        return sum(_mean([ok for ok, right in flags if right is kind]) for kind in (True, False)) / 2
    wanted = [given if role == "verifier" else problem.totals[-1] for problem, _, given in cases]
    return _mean([after(text) == str(number) for text, number in zip(texts, wanted, strict=True)])


def _mean(flags: list[bool]) -> float:
    return sum(flags) / max(1, len(flags))
