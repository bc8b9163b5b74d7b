"""The vocabulary of Merit: what a stage writes and the next one reads.

Every record is frozen and plain (no torch, no Parsl, no file handle), so it can be hashed, compared,
pickled and made by hand in a test. What can be derived is a property, never a field.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict


class MeritError(Exception):
    """A fault that the user can mend; its message is all that they are shown.

    Its only argument is the message, so it pickles and can cross a process.
    """


class Options(BaseModel):
    """Base of every leaf's `Options`: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def digest(value: Any) -> str:
    """The first 32 hex digits of the SHA-256 of `value` as canonical JSON.

    Equal values give equal digests on any machine and Python version; tuples equal lists.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def state_of(prompt_ids: np.ndarray) -> str:
    """A digest of the token ids (int32) that an agent sees."""
    return hashlib.sha256(prompt_ids.astype("<i4").tobytes()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Task:
    """A question with a checkable answer."""

    id: str  # stable: the same problem has the same id in every run
    question: str  # what the team is shown
    answer: str  # the gold answer field, in the form that the task's verifier parses
    family: str  # the file under apps/tasks that made it
    split: str  # "train", "validation" or "test"
    level: int = 0  # graded difficulty where the family has one, else 0
    solution: str = ""  # a worked gold solution where the family has one
    subject: str = ""  # a subject or source within the family
    choices: tuple[str, ...] = ()  # the options of a multiple-choice task, without their letters


@dataclass(frozen=True, slots=True)
class Sampling:
    """How completions are drawn. Log-probabilities are those of this very distribution."""

    temperature: float = 1.0  # 0 = greedy
    max_new_tokens: int = 64  # a completion that reaches it ends with finish = "length"
    top_p: float = 1.0  # nucleus; 1 keeps the whole distribution
    top_k: int = 0  # 0 keeps the whole distribution

    def __post_init__(self) -> None:
        if not (self.temperature >= 0 and self.max_new_tokens >= 1 and 0 < self.top_p <= 1 and self.top_k >= 0):
            raise ValueError(f"temperature and top_k from 0, max_new_tokens from 1, top_p in (0, 1]; given {self}")

    @property
    def whole(self) -> bool:
        """Whether every token can be drawn: if not, a trainer has to know which ones were left."""
        return self.temperature > 0 and self.top_p == 1 and self.top_k == 0


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """What one agent said once, exactly as it was sampled."""

    agent: str  # who spoke: the role's name in the topology
    path: str  # where in the play: "critic.1" = the critic's second turn; nested plays join by "/"
    prompt: str  # the rendered prompt as text, for people
    text: str  # the completion as text, special tokens left out
    prompt_ids: np.ndarray  # int32 (P,)
    completion_ids: np.ndarray  # int32 (C,), the end token included where it was sampled
    logprobs: np.ndarray  # float32 (C,), nats, of the sampling distribution
    policy: str  # digest of the trained weights that spoke; "base" without such
    sampling: Sampling  # the sampler's settings
    seed: int  # the 64-bit key of this turn's randomness
    finish: Literal["stop", "length", "substitute"] = "stop"  # why it ended
    stand_in: str = ""  # the protocol that spoke in the agent's place; "" if it spoke itself
    kept: np.ndarray | None = (
        None  # int32 (C, K): the ids that top-k and top-p left to draw each token from, −1 beyond; None = all
    )

    @property
    def state(self) -> str:
        """What the agent saw, as a digest: turns with the same agent and state are alternatives."""
        return state_of(self.prompt_ids)


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """One play of a team on one task: its turns in order, and the answer it ended in."""

    task: str  # the task's id
    sample: str  # which play of the task: "3", or the branch taken at each turn, "0.2.1", in a tree
    turns: tuple[Turn, ...]  # in the order they were asked for
    answer: str  # the text that the team gives as its answer
    converged: bool  # ended by agreement, not because its rounds were used up

    @property
    def id(self) -> str:
        return f"{self.task}#{self.sample}"

    @property
    def agents(self) -> tuple[str, ...]:
        """The agents that spoke, in the order of their first turns."""
        return tuple(dict.fromkeys(turn.agent for turn in self.turns))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a verifier says of an answer. A failure to parse is a verdict, not an exception."""

    score: float  # 1 right, 0 wrong; verifiers of degree may lie between
    parsed: str | None  # the answer as understood; None = it could not be parsed
    reason: str  # a short sentence for people

    @property
    def right(self) -> bool:
        return self.score >= 0.5


@dataclass(frozen=True, slots=True)
class Graded:
    """A trace with the verdicts that grading put on it."""

    trace: Trace
    verdict: Verdict  # of the team's answer
    turn_verdicts: tuple[Verdict | None, ...]  # of each turn's own text, where it carries an answer; else None

    def before(self, turn: int) -> Verdict | None:
        """The verdict of the answer that a turn found: the last one before it, if there was any."""
        return next((verdict for verdict in reversed(self.turn_verdicts[:turn]) if verdict is not None), None)


@dataclass(frozen=True, slots=True)
class Group:
    """All graded traces of one task under one policy: what a credit method is given at once."""

    task: Task
    graded: tuple[Graded, ...]
    roles: tuple[str, ...] = ()  # the team's agents in the topology's order, also those that never spoke
    duties: Mapping[str, str] = field(default_factory=dict)  # role -> "solve", "check", "revise" or "report"

    @property
    def scores(self) -> list[float]:
        return [g.verdict.score for g in self.graded]


@dataclass(frozen=True, slots=True)
class Replay:
    """A counterfactual that a credit method asks for: a recorded trace, played again with a change.

    The topology is run again. The first `keep` turns are handed back as recorded. From there on whoever is
    `absent` is replaced by what its protocol declares, and every other agent speaks: its recorded turn is
    reused where its prompt is unchanged, else it is sampled with the randomness of `repeat`.
    """

    trace: int  # index into the group's traces
    absent: tuple[tuple[str, str], ...] = ()  # (agent, or path of one turn; "bypass", "null", "base" or "cached")
    repeat: int = 0  # which independent draw; the same number means the same random numbers in every coalition
    keep: int = 0  # turns at the start that are handed back as recorded, whoever spoke them
    fresh: Literal["", "next", "rest"] = (
        ""  # sampled again though its prompt is unchanged: the turn after the kept; all
    )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a replay."""

    score: float  # the verdict's score on the answer of the replay
    answer: str  # the parsed answer, or ""
    sampled_turns: int  # turns that had to be generated
    sampled_tokens: int  # tokens that had to be generated
    stand_ins: tuple[tuple[str, str], ...] = ()  # (path of a turn, protocol) of each that stood in, fallbacks included
    text: str = ""  # what the turn after the kept ones said, where `fresh` is "next"


@dataclass(frozen=True, slots=True)
class Consult:
    """A question that a credit method puts to a judge, a model that does not play."""

    prompt: str  # the user's message; the judge's own chat template is put around it
    fields: tuple[tuple[str, str], ...] = ()  # (name, text) that the prompt was filled with, for judges without a model
    repeat: int = 0  # which independent draw


@dataclass(frozen=True, slots=True)
class Said:
    """A judge's reply."""

    text: str
    sampled_tokens: int


@dataclass(frozen=True, slots=True)
class Rate:
    """A question to a reward model: how likely it finds each of some texts after a prompt."""

    prompt: str  # the user's message; the model's own chat template is put around it
    texts: tuple[str, ...]  # whole completions


@dataclass(frozen=True, slots=True)
class Rated:
    """A reward model's reply."""

    nats: tuple[float, ...]  # log-probability of each text, its end token included
    read_tokens: int  # tokens that had to be read


@dataclass(frozen=True, slots=True)
class Reward:
    """A question to reward models with a scalar head: the reward of a text, after each of its pieces."""

    prompt: str  # the user's message, or the whole prompt as the chat template made it where it is `rendered`
    pieces: tuple[str, ...]  # the completion, in one piece or in steps; the end token follows the last
    rendered: bool = False


@dataclass(frozen=True, slots=True)
class Rewarded:
    """The reply of one reward model, or of each of an ensemble."""

    rewards: tuple[tuple[float, ...], ...]  # of each model, after each piece
    read_tokens: int  # tokens that had to be read


Question = Replay | Consult | Rate | Reward  # what a credit method may yield, in lists
Finding = Outcome | Said | Rated | Rewarded  # and what it is sent, in the same order


@dataclass(frozen=True, slots=True)
class Credit:
    """The signed value that a method gives each turn of one trace."""

    trace: str  # the trace's id
    values: tuple[float, ...]  # one a turn, in the order of the trace's turns
    errors: tuple[float, ...]  # standard error of each value; 0 where it is not estimated
    agents: dict[str, float] = field(default_factory=dict)  # value of each agent, also of one that did not speak
    agent_errors: dict[str, float] = field(default_factory=dict)  # and its standard error
    notes: tuple[str, ...] = ()  # sentences that explain it ("with the critic absent: right in 6 of 8")
    residual: float | None = None  # what the shares miss of v(N) − v(∅); None where a method promises no such sum


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """What is known of a turn token by token, for an advantage estimator that looks so closely."""

    divergence: np.ndarray  # float64 (C,), nats: logp_old − logp_ref of each token; zeros where no reference was asked
    values: np.ndarray  # float64 (C,): what a value model expects before each token; zeros where none was asked
    after: tuple[
        tuple[tuple[str, str, int], float], ...
    ] = ()  # ((trace, agent, index) of a next turn of the agent, its
    # share of the traces that go through this one); in a tree there are several, at a play's end none


@dataclass(frozen=True, slots=True)
class Valued:
    """A turn as an advantage estimator sees it: its credit, and what it may be compared with."""

    task: str  # the task's id
    trace: str  # the trace's id
    agent: str
    index: int  # which turn of this agent in the trace: 0, 1, …
    state: str  # digest of what the agent saw
    value: float  # the credit of the turn
    outcome: float  # the score of the trace's answer
    error: float = 0.0  # standard error of the credit; 0 where it is not estimated
    tokens: Tokens | None = None  # token by token, where an estimator asked for it


@dataclass(frozen=True, slots=True)
class Policy:
    """Who speaks for a role: the base model, with an adapter on it or without, or a whole model that was trained."""

    agent: str
    digest: str = "base"  # of the trained weights
    adapter: str = ""  # folder of the adapter in PEFT format; "" = a model alone
    model: str = ""  # folder of the model that speaks, under the adapter if there is one; "" = the engine's own
    base: str = ""  # folder of the untrained base model, which stands in for the agent; "" = the engine's own

    @property
    def folder(self) -> str:
        """Where its trained weights lie; "" where it has none."""
        return self.adapter or (self.model if self.digest != "base" else "")


@dataclass(frozen=True, slots=True)
class Artifact:
    """A finished result in the store."""

    stage: str
    key: str  # digest of the stage, the code it runs, its options and the keys of its inputs
    path: str  # the folder
