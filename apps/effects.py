"""What a topology may yield, and the answer that it returns.

A topology is a plain generator: it yields the effects that it wants and receives their results. It never
calls a model, so the driver can batch many plays, replay one, or put a stand-in in an agent's place.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

from apps.records import Task


@dataclass(frozen=True, slots=True)
class Ask:
    """An agent is to speak. Its result is the text that it says."""

    role: str
    fields: Mapping[str, str]  # what the role's prompt template is filled with
    bypass: str | None = None  # the text that stands where the role is absent; None = the play needs this role


@dataclass(frozen=True, slots=True)
class Call:
    """A tool is to be used. Its result is the tool's text. Tools are pure: a replay calls them again."""

    tool: str  # a file under apps/tools
    arguments: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Score:
    """A verifier is to look at a text. Its result is a Verdict."""

    verifier: str  # a file under apps/reward
    text: str


@dataclass(frozen=True, slots=True)
class Play:
    """A nested team is to play. Its result is the text of its Answer."""

    topology: str  # a file under apps/topologies
    task: Task
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """How a play ends."""

    text: str
    converged: bool = True  # False where the rounds were used up without agreement


Effect = Ask | Call | Score | Play
Playing = Generator[Effect | list[Effect], Any, Answer]
