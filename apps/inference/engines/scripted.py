"""Agents with set error rates and no model: for tests, dry studies of credit, and learning the machinery.

A scripted agent knows the task's truth and errs with a set chance, drawn from its request's seed. It writes the
output formats of the built-in topologies. What a role does is an option: MALT's verifier, for one, checks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import Field

from apps import leaf, records
from apps.inference.engine import Completion, Request
from apps.records import Policy, Task

NUMBER = re.compile(r"-?\d+")


class Options(records.Options):
    """How often an agent of each duty errs, and how much an adapter would help."""

    solve: float = Field(0.4, ge=0, le=1, description="chance that a solver's answer is wrong")
    wave_through: float = Field(0.3, ge=0, le=1, description="chance that a critic passes a wrong draft")
    cry_wolf: float = Field(0.2, ge=0, le=1, description="chance that a critic rejects a right draft")
    revise: float = Field(0.3, ge=0, le=1, description="chance that a reviser's answer is wrong")
    report: float = Field(0.1, ge=0, le=1, description="chance that a verifier misreads the answer")
    duties: dict[str, str] = Field(
        {
            "solver": "solve",
            "generator": "solve",
            "critic": "check",
            "reviser": "revise",
            "refiner": "revise",
            "verifier": "report",
        },
        description="duty of each role: solve, check, revise or report",
    )


class Scripted:
    """An engine without a model; its token ids are the bytes of the text, closed by a 0."""

    def __init__(self, options: Options) -> None:
        self.options = options

    def render(self, system: str, user: str) -> tuple[str, np.ndarray]:
        prompt = f"{system}\n{user}" if system else user
        return prompt, np.frombuffer(prompt.encode(), np.uint8).astype(np.int32)

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        return [self._speak(request) for request in requests]

    def score(self, policy: Policy, sequences: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
        return [np.zeros(len(completion), np.float32) for _, completion in sequences]

    def _speak(self, request: Request) -> Completion:
        rng = np.random.default_rng(request.seed)
        text = self._say(request.ask.role, dict(request.ask.fields), request.task, rng)
        ids = np.frombuffer(text.encode() + b"\0", np.uint8).astype(np.int32)
        return Completion(text, ids, np.full(len(ids), -0.1, np.float32), "stop")

    def _say(self, role: str, fields: dict[str, Any], task: Task, rng: np.random.Generator) -> str:
        duty = self.options.duties.get(role, "")
        if duty not in ("solve", "check", "revise", "report"):
            raise records.MeritError(
                leaf.unknown(f"scripted duty of {role}", duty, ["solve", "check", "revise", "report"])
            )
        if duty == "check":
            return self._check(fields["draft"], task, rng)
        if duty == "report":
            said = _answer(fields["draft"])
            return f"ANSWER: {said if rng.random() >= self.options.report else _wrong(said, rng)}"
        wrong = rng.random() < getattr(self.options, duty)
        return f"ANSWER: {_wrong(task.answer, rng) if wrong else task.answer}"

    def _check(self, draft: str, task: Task, rng: np.random.Generator) -> str:
        right = _answer(draft) == task.answer
        error = self.options.cry_wolf if right else self.options.wave_through
        agrees = right if rng.random() >= error else not right
        return f"VERDICT: {'CORRECT' if agrees else 'INCORRECT'}"


def load(model: str, options: Options, device: str) -> Scripted:
    return Scripted(options)


def _answer(text: str) -> str:
    numbers = NUMBER.findall(text)
    return numbers[-1] if numbers else "0"


def _wrong(answer: str, rng: np.random.Generator) -> str:
    return str(int(float(answer)) + int(rng.integers(1, 10)))
