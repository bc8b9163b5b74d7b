"""The game that replays play: who its players are, how a coalition is replayed, what came of it. Not a method.

The players of a trace are its agents (or its turns, by path). v(N) is the trace's own score, at no cost; any other
coalition S is replayed `repeats` times with the players outside of S replaced by what their protocol declares, and
v(S) is the mean. The protocol defines the game, and with it what v(∅) is:

- "bypass": each turn is the text that the topology declares for an absent agent: no objection, the draft as it is;
- "null": each turn is empty; v(∅) is the score of an empty answer wherever the topology passes texts on;
- "base": the frozen base model speaks; v(∅) is the untrained team;
- "cached": what the agent said in another play of the task, and the bypass where it never spoke in one; v(∅) is
  about the score of that play.

Who cannot be bypassed (nobody solves in the solver's place) is spoken for by the base model ("fallback": v(∅) is then
a base solver whose draft stands), or is no player that can be absent ("leave_out": such agents come first in every
order, as in `games.precedence`, and v(∅) is declared 0: without them there is no team). They are found where they
alone are absent; where it shows up only elsewhere, the base model speaks. The notes tell what stood in.

The same repeat means the same random numbers in every coalition. Errors: v(S) has the unbiased sample variance of its
repeats over R, and an index adds them by its squared weights as if coalitions were independent; a difference of
positively correlated values varies less than that. Repeats that all agree, and a single repeat, give 0: that is "not
estimated", not "certain".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from pydantic import Field

from apps.credit import budget, groups, shares
from apps.credit.budget import Budget
from apps.leaf import unknown
from apps.records import Credit, Graded, Group, MeritError, Outcome, Replay

MOST_PLAYERS = 6  # for which every coalition is replayed

Protocol = Literal["bypass", "null", "base", "cached"]
Asking = Generator[list[Replay], list[Outcome], Any]


class Replayed(Budget):
    """What every method that replays coalitions is told: which game is played and what it may cost."""

    players: Literal["spoke", "all"] = Field("spoke", description="agents that spoke in the trace, or the whole team")
    protocol: Protocol = Field("bypass", description="what stands in for an absent agent that protocols does not name")
    protocols: dict[str, Protocol] = Field({}, description="what stands in for an absent agent, by role")
    infeasible: Literal["fallback", "leave_out"] = Field(
        "fallback", description="who cannot be bypassed: the base model stands in, or they come first in every order"
    )
    repeats: int = Field(4, ge=1, description="replays of each coalition; 1 gives no intervals")


@dataclass(eq=False)
class Game:
    """The game of one trace, and the scores of the coalitions replayed so far. Bit i of a mask is `players[i]`."""

    group: Group
    trace: int  # index into the group's traces: whose credit it is
    players: tuple[str, ...]  # agents, or paths of turns
    options: Replayed
    fresh: bool = False  # the task's game: all turns are played anew, v(N) as well, alike for all traces of the task
    required: tuple[str, ...] = ()  # who cannot be absent, so is no player: in every coalition
    scores: dict[tuple, dict[int, float]] = field(default_factory=dict)  # absent -> repeat -> score
    fell_back: Counter = field(default_factory=Counter)  # (player, what stood in though another was declared) -> turns

    @property
    def graded(self) -> Graded:
        return self.group.graded[self.trace]

    @property
    def full(self) -> int:
        return 2 ** len(self.players) - 1

    @cached_property
    def stand_ins(self) -> tuple[tuple[str, str], ...]:
        """Each player with the protocol of its absence."""
        protocols, other = self.options.protocols, self.options.protocol
        return tuple((player, protocols.get(shares.role_of(player), other)) for player in self.players)

    def absent(self, mask: int) -> tuple[tuple[str, str], ...]:
        """Who is not in the coalition, with their protocols."""
        return tuple([pair for i, pair in enumerate(self.stand_ins) if not mask >> i & 1])

    def replay(self, mask: int, repeat: int) -> Replay:
        if self.fresh:
            return Replay(0, self.absent(mask), repeat, fresh="rest")
        return Replay(self.trace, self.absent(mask), repeat)

    def known(self, mask: int) -> bool:
        """Whether a coalition needs no replay: the whole team played the trace itself."""
        return mask == self.full and not self.fresh

    def ask(self, evaluations: Iterable[tuple[int, int]]) -> Asking:
        """The score of each (mask, repeat); what is known or was asked before is not asked for."""
        wanted = [None if self.known(mask) else self.replay(int(mask), repeat) for mask, repeat in evaluations]
        new = [r for r in wanted if r and r.repeat not in self.scores.get(r.absent, ())]
        if new:
            for asked, outcome in zip(new, (yield new), strict=True):
                self.scores.setdefault(asked.absent, {})[asked.repeat] = groups.score_of(outcome, self.group, asked)
                self.fell_back.update(fallbacks(asked, outcome))
        return [self.scores[r.absent][r.repeat] if r else self.graded.verdict.score for r in wanted]

    def table(self, masks: Iterable[int] | None = None) -> Asking:
        """Means and variances of the means by mask, (2**n,) each, of all coalitions or of `masks`; NaN elsewhere."""
        repeats, wanted = self.options.repeats, list(range(self.full + 1) if masks is None else masks)
        scores = yield from self.ask((mask, repeat) for mask in wanted for repeat in range(repeats))
        rows = np.array(scores, dtype=np.float64).reshape(-1, repeats)
        values, variances = np.full((2, self.full + 1), np.nan)
        values[wanted], variances[wanted] = rows.mean(axis=1), variance_of_mean(rows)
        return values, variances

    def worth(self, mask: int) -> tuple[float, float]:
        """v of a coalition replayed before, over all its repeats, and the variance of that mean."""
        if self.known(mask):
            return self.graded.verdict.score, 0.0
        row = np.array([list(self.scores[self.absent(mask)].values())])
        return float(row.mean()), float(variance_of_mean(row)[0])

    def feasible(self) -> Asking:
        """The game of those who can be absent as declared; this one itself where others may stand in."""
        if self.options.infeasible == "fallback" or not self.players:
            return self
        alone = [self.full & ~(1 << i) for i in range(len(self.players))]
        yield from self.ask((mask, repeat) for mask in alone for repeat in range(self.options.repeats))
        stuck = {player for player, did in self.fell_back if did == "base"}
        rest = tuple(p for p in self.players if p not in stuck)
        return replace(self, players=rest, required=tuple(p for p in self.players if p in stuck))

    def first(self) -> tuple[float, float]:
        """The share of each who is required, and its error: they come first and together, and earn v(R) − 0."""
        value, variance = self.worth(0)
        return value / len(self.required), variance**0.5 / len(self.required)

    def credit(
        self,
        values: Sequence[float],
        errors: Sequence[float],
        first: tuple[float, float] = (0.0, 0.0),
        notes: tuple[str, ...] = (),
        efficient: bool = False,
    ) -> Credit:
        """The credit of the trace from a value and an error for each player; `first` for each who is required.

        An `efficient` index tells what its sum misses.
        """
        value = dict(zip(self.players, map(float, values), strict=True)) | dict.fromkeys(self.required, first[0])
        error = dict(zip(self.players, map(float, errors), strict=True)) | dict.fromkeys(self.required, first[1])
        residual = sum(value.values()) - self.gain() if efficient else None
        return shares.shared_out(
            self.graded, groups.agents(self.group), value, error, (*self.notes(), *notes), residual
        )

    def gain(self) -> float:
        """v(N) − v(∅)."""
        return self.worth(self.full)[0] - (0.0 if self.required else self.worth(0)[0])

    def notes(self) -> tuple[str, ...]:
        """How the team did without each player and without all, and who could not be absent as declared."""
        if not self.players and not self.required:
            return ("nobody spoke: there is nothing to share",)
        missing = {self.full & ~(1 << i): f"{p} ({protocol})" for i, (p, protocol) in enumerate(self.stand_ins)}
        if len(self.players) > 1:
            missing[0] = "everyone" + (f" but {', '.join(self.required)}" if self.required else "")
        told = {who: list(self.scores.get(self.absent(mask), {}).values()) for mask, who in missing.items()}
        return (
            *(f"without {who}: {right_in(scores)}" for who, scores in told.items() if scores),
            *(f"{p} cannot be absent: first in every order, and nobody is worth 0" for p in self.required),
            *(
                f"{p} could not be absent by {protocol}: {did} stood in for {turns} turns"
                for p, protocol in self.stand_ins
                for (player, did), turns in self.fell_back.items()
                if player == p
            ),
        )


def each(group: Group, options: Replayed, value: Callable[[Game], Asking]) -> Asking:
    """The frame of a method: `value` of each trace's game, side by side; outside the share the centred score."""
    scores, team = groups.scores(group), groups.agents(group)
    check(group, options, team)
    if not budget.chosen(group.task.id, options.share):
        return budget.centred(group, scores, team)
    players = [team if options.players == "all" else graded.trace.agents for graded in group.graded]
    return (yield from together([value(Game(group, trace, names, options)) for trace, names in enumerate(players)]))


def together(running: Sequence[Asking]) -> Asking:
    """Runs generators of questions side by side, so that their replays batch."""
    ended: dict[int, Any] = {}
    wanted: dict[int, list[Replay]] = {}

    def advance(i: int, sent: list[Outcome] | None) -> None:
        try:
            wanted[i] = running[i].send(sent)
        except StopIteration as end:
            ended[i] = end.value
            wanted.pop(i, None)

    for i in range(len(running)):
        advance(i, None)
    while wanted:
        found = iter((yield [question for questions in wanted.values() for question in questions]))
        for i, questions in list(wanted.items()):
            advance(i, [next(found) for _ in questions])
    return [ended[i] for i in range(len(running))]


def variance_of_mean(rows: np.ndarray) -> np.ndarray:
    """Unbiased variance of each row's mean, (coalitions, repeats) to (coalitions,); 0 for a single repeat."""
    repeats = rows.shape[1]
    if repeats == 1:
        return np.zeros(len(rows))
    return np.where(np.ptp(rows, axis=1) > 0, rows.var(axis=1, ddof=1) / repeats, 0.0)  # no rounding error as an error


def fallbacks(asked: Replay, outcome: Outcome) -> list[tuple[str, str]]:
    """(player, protocol) of each turn at which another protocol than the declared stood in."""
    declared, found = dict(asked.absent), []
    for path, did in outcome.stand_ins:
        player = path if path in declared else shares.role_of(path)
        if declared.get(player, did) != did:
            found.append((player, did))
    return found


def right_in(scores: Sequence[float]) -> str:
    return f"right in {sum(score >= 0.5 for score in scores)} of {len(scores)} replays"


def check(group: Group, options: Replayed, team: Sequence[str]) -> None:
    """MeritError where there is nobody to share, a role that nobody plays, or nothing that "cached" could hand back."""
    if not team:
        raise MeritError(
            f"credit: task {group.task.id!r} has zero players: nobody spoke in its traces, and the group names no "
            "roles; give the topology ROLES, or leave the task out"
        )
    for role in options.protocols:
        if role not in team:
            raise MeritError(unknown("credit.protocols: role", role, list(team)))
    if "cached" in {options.protocol, *options.protocols.values()} and len(group.graded) < 2:
        raise MeritError(
            f"credit: the protocol cached hands back what was said in another play of the task, and {group.task.id!r} "
            "has a single trace; play each task more than once (rollout.samples) or take bypass, null or base"
        )
