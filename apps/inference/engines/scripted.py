"""Agents with set error rates and no model: for tests, for studies of credit, and to plant faults that are known.

A scripted agent knows the task's truth and errs with a set chance, drawn from its request's seed. It writes the output
formats of the built-in topologies. What a role does is an option: MALT's verifier, for one, checks.

A fault is an error on top of that which is *known*: the engine writes down the seed of every turn that it struck, and
nobody else is told. Faults belong to a team's own policies; the base model, which stands in for an absent agent, has none
unless it is told to.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from apps import leaf, records
from apps.inference.engine import Completion, Request
from apps.records import MeritError, Policy, Task

NUMBER, VERDICT = re.compile(r"-?\d+"), re.compile(r"VERDICT: (IN)?CORRECT$")
DUTIES = ("solve", "check", "revise", "report")
KINDS = {  # a fault -> the duties that it can strike
    "wrong_step": ("solve", "revise"),  # a wrong answer in a sure tone, which no honest critic notices
    "slip": ("solve", "revise"),  # a wrong answer like any other
    "wave_through": ("check",),  # passes a wrong draft
    "cry_wolf": ("check",),  # rejects a right draft
    "break_right": ("revise",),  # makes a right draft wrong
    "misread": ("report",),  # hands on another number than the draft's
    "sabotage": DUTIES,  # does the most harm that its duty can: one of the above
    "free_ride": ("check", "revise"),  # agrees with a wrong draft, or copies it
}
SURE = "I am certain."  # what a wrong step sounds like


class Rates(records.Options):
    """How often an agent errs by itself."""

    solve: float = Field(0.4, ge=0, le=1, description="chance that a solver's answer is wrong")
    wave_through: float = Field(0.3, ge=0, le=1, description="chance that a critic passes a wrong draft")
    cry_wolf: float = Field(0.2, ge=0, le=1, description="chance that a critic rejects a right draft")
    revise: float = Field(0.3, ge=0, le=1, description="chance that a reviser's answer is wrong")
    break_right: float | None = Field(
        None,
        ge=0,
        le=1,
        description="chance that a reviser breaks a right draft that it is told is INCORRECT; where it is set, a draft "
        "called CORRECT is kept; unset, a reviser errs with `revise` whatever it is told",
    )
    report: float = Field(0.1, ge=0, le=1, description="chance that a verifier misreads the answer")


class Fault(records.Options):
    """One agent's known weakness. It strikes where it can do harm: `wave_through` only on a wrong draft, and so on."""

    role: str = Field(description="the agent")
    kind: Literal[tuple(KINDS)] = Field(description="what it does")
    rate: float = Field(0.3, ge=0, le=1, description="chance at each turn where it can do harm")
    turn: int | Literal["any"] = Field("any", description="0 = only the agent's first turn in a play, and so on")


class Options(Rates):
    """How often an agent of each duty errs; what single roles do otherwise; which faults are planted."""

    roles: dict[str, dict[str, float | None]] = Field({}, description="role: {rate: chance} that differ from these")
    faults: tuple[Fault, ...] = Field((), description="weaknesses of a team's own policies, the base model has none")
    faulty_base: bool = Field(False, description="the base model has them too: a stand-in is no better than the agent")
    duties: dict[str, str] = Field(
        {
            "solver": "solve",
            "generator": "solve",
            "critic": "check",
            "critic_a": "check",
            "critic_b": "check",
            "reviser": "revise",
            "refiner": "revise",
            "verifier": "report",
            "judge": "check",
        },
        description="duty of each role: solve, check, revise or report",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Options:
        for role, given in self.roles.items():
            _check_role(role, self.duties, "roles")
            for name in given:
                if name not in Rates.model_fields:
                    raise ValueError(leaf.unknown(f"roles.{role}: rate", name, list(Rates.model_fields)))
            Rates(**given)
        for fault in self.faults:
            _check_role(fault.role, self.duties, "faults")
            duty = self.duties[fault.role]
            if duty not in KINDS[fault.kind]:
                able = ", ".join(kind for kind, duties in KINDS.items() if duty in duties)
                raise ValueError(
                    f"faults: {fault.kind} cannot strike the {fault.role}, whose duty is {duty} (can: {able})"
                )
        return self

    def rates(self, role: str) -> Rates:
        """Of one role."""
        usual = {name: getattr(self, name) for name in Rates.model_fields}
        return Rates(**{**usual, **self.roles.get(role, {})})


def _check_role(role: str, duties: dict[str, str], where: str) -> None:
    if role not in duties:
        raise ValueError(leaf.unknown(f"{where}: role", role, list(duties)))


class Scripted:
    """An engine without a model; its token ids are the bytes of the text, closed by a 0."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.struck: dict[int, str] = {}  # seed of a turn -> the kind of the fault that struck it
        self._rates = {role: options.rates(role) for role in options.duties}

    def render(self, system: str, user: str) -> tuple[str, np.ndarray]:
        prompt = f"{system}\n{user}" if system else user
        return prompt, np.frombuffer(prompt.encode(), np.uint8).astype(np.int32)

    def completion(self, text: str) -> np.ndarray:
        return np.frombuffer(text.encode() + b"\0", np.uint8).astype(np.int32)

    def encode(self, text: str) -> np.ndarray:
        return self.render("", text)[1]

    def joined(self, pieces: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        ids = self.completion("".join(pieces))
        return ids, np.cumsum([len(piece.encode()) for piece in pieces[:-1]] + [len(pieces[-1].encode()) + 1]) - 1

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        return [self._speak(request) for request in requests]

    def reward(self, policy: Policy, sequences: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
        raise MeritError(
            "scripted agents are no reward model; give the model under it too (credit.model, verifier.model)"
        )

    def score(self, policy: Policy, sequences: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
        return [np.zeros(len(completion), np.float32) for _, completion in sequences]

    def _speak(self, request: Request) -> Completion:
        role, fields = request.ask.role, dict(request.ask.fields)
        duty = self.options.duties.get(role, "")
        if duty not in DUTIES:
            raise MeritError(leaf.unknown(f"scripted duty of {role}", duty, list(DUTIES)))
        text = self._faulty(request, duty, fields)
        if text is None:
            text = say(duty, self._rates[role], fields, request.task, np.random.default_rng(request.seed))
        ids = np.frombuffer(text.encode() + b"\0", np.uint8).astype(np.int32)
        return Completion(text, ids, np.full(len(ids), -0.1, np.float32), "stop")

    def _faulty(self, request: Request, duty: str, fields: dict[str, Any]) -> str | None:
        """What the first fault that strikes says; None where none does. Its dice are apart from those of usual errors."""
        if request.policy.digest == "base" and not self.options.faulty_base:
            return None
        for number, fault in enumerate(self.options.faults):
            turn = fault.turn in ("any", int(request.path.rpartition(".")[2] or 0))
            if fault.role != request.ask.role or not turn:
                continue
            rng = np.random.default_rng((request.seed, number + 1))
            text = strike(fault.kind, duty, fields, request.task, rng)
            if text is not None and rng.random() < fault.rate:
                self.struck[request.seed] = fault.kind
                return text
        return None


def load(model: str, options: Options, device: str) -> Scripted:
    return Scripted(options)


def say(duty: str, rates: Rates, fields: dict[str, Any], task: Task, rng: np.random.Generator) -> str:
    """What an agent says by itself."""
    if duty == "check":
        return _check(fields, rates, task, rng)
    if duty == "report":
        said = _answer(fields["draft"])
        return f"ANSWER: {said if rng.random() >= rates.report else _wrong(said, rng)}"
    if duty == "revise" and rates.break_right is not None:
        if not _rejected(fields):
            return fields["draft"]
        chance = rates.break_right if _right(fields["draft"], task) else rates.revise
    else:
        chance = getattr(rates, duty)
    wrong = rng.random() < chance
    return f"ANSWER: {_wrong(task.answer, rng) if wrong else task.answer}"


def strike(kind: str, duty: str, fields: dict[str, Any], task: Task, rng: np.random.Generator) -> str | None:
    """What a fault makes an agent say; None where it can do no harm."""
    draft = fields.get("draft", "")
    right, noticed = _right(draft, task), not _passes(draft, task)
    if kind == "sabotage":
        kind = _worst(duty, right)
    if kind == "wrong_step":
        return f"{SURE} ANSWER: {_wrong(task.answer, rng)}"
    if kind == "slip":
        return f"ANSWER: {_wrong(task.answer, rng)}"
    if kind == "misread":
        return f"ANSWER: {_wrong(_answer(draft), rng)}" if right else None
    if kind == "break_right":
        return f"ANSWER: {_wrong(task.answer, rng)}" if right and _rejected(fields) else None
    if kind == "cry_wolf":
        return "VERDICT: INCORRECT" if right else None
    if duty == "check":  # wave_through, or a free rider
        return "VERDICT: CORRECT" if noticed else None
    return draft if not right and _rejected(fields) else None  # a reviser that rides free


def _worst(duty: str, right: bool) -> str:
    """What a saboteur does: another duty, another harm."""
    if duty == "check":
        return "cry_wolf" if right else "wave_through"
    return "misread" if duty == "report" else "wrong_step"


def _check(fields: dict[str, Any], rates: Rates, task: Task, rng: np.random.Generator) -> str:
    """A verdict on a draft; a judge who is shown a check judges whether that is true."""
    passes = _passes(fields["draft"], task)
    if VERDICT.search(fields.get("turn", "")):
        passes = passes != _rejected({"review": fields["turn"]})
    error = rates.cry_wolf if passes else rates.wave_through
    agrees = passes if rng.random() >= error else not passes
    return f"VERDICT: {'CORRECT' if agrees else 'INCORRECT'}"


def _passes(draft: str, task: Task) -> bool:
    """Whether an honest critic has nothing against a draft: it is right, or sounds sure."""
    return _right(draft, task) or draft.startswith(SURE)


def _right(draft: str, task: Task) -> bool:
    return _answer(draft) == task.answer


def _rejected(fields: dict[str, Any]) -> bool:
    """Whether a reviser was told that its draft is wrong."""
    return "INCORRECT" in fields.get("review", "")


def _answer(text: str) -> str:
    numbers = NUMBER.findall(text)
    return numbers[-1] if numbers else "0"


def _wrong(answer: str, rng: np.random.Generator) -> str:
    try:
        return str(int(float(answer)) + int(rng.integers(1, 10)))
    except ValueError as error:
        raise MeritError(f"engine.name=scripted: its agents err in numbers alone; {answer!r} is none") from error
