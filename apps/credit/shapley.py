"""Shapley values of the agents of each trace, by replaying it with coalitions of them absent.

φ_i is what i adds to those before it, averaged over all orders of arrival (Shapley 1953): Σφ = v(N) − v(∅), equal
players are equal, who changes nothing gets 0. `coalitions` tells how v(S) is played and what its errors leave out.

- `game="trace"`, for training: v(N) is this trace's own score, so φ differs between the samples of a task.
  `game="task"`, for analysis: v(S) is the mean over fresh plays of the task, v(N) too; all traces of the task have one
  φ, so any baseline within the group makes it vanish: nothing can be trained on it.
- `level="agent"`: an agent's turns share its φ equally. `level="turn"`: the players are the turns, by path; an agent's
  value is the sum over its turns.
- Up to 6 players exact, from 2^n − 1 coalitions of `repeats` replays; beyond it from orders drawn at random
  (`estimators`), each with random numbers of its own that its coalitions share, until every 95 % interval is narrower
  than `width` or `budget` coalition values are spent. Those errors come from the orders' spread, and are never 0.

The values of a trace sum to v(N) − v(∅), less the φ of agents that never spoke; `residual` is what rounding leaves.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Literal

import numpy as np
from pydantic import Field

from apps import records
from apps.credit import coalitions, estimators, games, groups
from apps.credit.coalitions import MOST_PLAYERS, Asking, Game
from apps.records import Group, MeritError


class Options(coalitions.Replayed):
    """Which game is played, and how its values are found."""

    game: Literal["trace", "task"] = Field("trace", description="replay the trace; or play the task anew (analysis)")
    level: Literal["agent", "turn"] = Field("agent", description="whether agents or single turns are absent")
    sampling: Literal["auto", "exact", "plain", "antithetic", "stratified"] = Field(
        "auto", description="every coalition, or orders drawn at random; auto: exact to 6 players, then antithetic"
    )
    width: float = Field(
        0.3, ge=0, description="of sampling: enough when no 95 % interval is wider; 0 = use the budget"
    )
    budget: int = Field(512, ge=1, description="of sampling: coalition values a trace at most")
    interactions: bool = Field(False, description="note each pair's interaction: − redundancy, + synergy")


def asks(options: Options) -> bool:
    return options.share > 0


def assign(group: Group, options: Options) -> Asking:
    """φ of each agent in each trace. The replays of all traces of the group are asked for together, so they batch."""
    if options.level == "turn" and options.players == "all":
        raise MeritError("credit.players=all has no turns for agents that did not speak; set credit.level=agent")
    return (yield from coalitions.each(group, options, value))


def value(game: Game) -> Asking:
    """The credit of one trace."""
    game = replace(game, players=players(game), fresh=game.options.game == "task")
    game = yield from game.feasible()
    phi, errors, notes = yield from (exact(game) if scheme(game) == "exact" else sampled(game))
    return game.credit(phi, errors, game.first() if game.required else (0.0, 0.0), notes, efficient=True)


def players(game: Game) -> tuple[str, ...]:
    """Who plays: agents or turns, of this trace; in the task's game of all its traces, so that it is one game."""
    traces = [g.trace for g in game.group.graded] if game.options.game == "task" else [game.graded.trace]
    if game.options.level == "turn":
        return tuple(dict.fromkeys(turn.path for trace in traces for turn in trace.turns))
    if game.options.players == "all" or game.options.game == "trace":
        return game.players
    spoke = {agent for trace in traces for agent in trace.agents}
    return tuple(agent for agent in groups.agents(game.group) if agent in spoke)


def scheme(game: Game) -> str:
    """How the values of a game are found. MeritError where it is too large for what was asked."""
    n, wanted = len(game.players), game.options.sampling
    if wanted == "auto":
        return "exact" if n <= MOST_PLAYERS else "antithetic"
    if wanted == "exact" and n > MOST_PLAYERS:
        raise MeritError(
            f"credit.shapley: trace {game.graded.trace.id!r} has {n} players ({', '.join(game.players)}), at most "
            f"{MOST_PLAYERS} are exact ({2**MOST_PLAYERS - 1} coalitions); set credit.sampling=auto, credit.level=agent "
            "or credit.players=spoke, or take another credit method (leave_one_out, first_error)"
        )
    return wanted if n else "exact"


def exact(game: Game) -> Asking:
    """φ, errors and notes from every coalition."""
    values, variances = yield from game.table()
    notes = interactions(game.players, values, variances) if game.options.interactions else ()
    return games.shapley(values), np.sqrt(games.shapley_variance(variances)), notes


def sampled(game: Game) -> Asking:
    """φ, errors and notes from orders of arrival drawn at random; a draw is the repeat of its replays."""
    options, n = game.options, len(game.players)
    known = {game.full: game.worth(game.full)[0]} if game.known(game.full) else {}
    estimating = estimators.estimate(
        n, scheme(game), budget=options.budget, width=options.width, known=known, seed=seed_of(game.group.task.id)
    )
    found = yield from answered(estimating, game)
    notes = [
        f"φ from {found.orders} orders of {n} players ({scheme(game)}) and {found.evaluations} coalition values; "
        f"95 % intervals up to {found.width:.2g} wide"
    ]
    if options.interactions:
        notes.append(
            f"interactions need every coalition, which at most {MOST_PLAYERS} players can have: not worked out"
        )
    return found.values, found.errors, tuple(notes)


def answered(estimating: estimators.Asking, game: Game) -> Asking:
    """An estimate, its evaluations answered by replays."""
    sent = None
    while True:
        try:
            evaluations = estimating.send(sent)
        except StopIteration as end:
            return end.value
        sent = np.array((yield from game.ask(evaluations.tolist())))


def interactions(names: tuple[str, ...], values: np.ndarray, variances: np.ndarray) -> tuple[str, ...]:
    """A sentence on the Shapley interaction index of each pair."""
    index, variance = games.interaction(values), games.interaction_variance(variances)
    meaning = {-1: " (redundancy)", 0: "", 1: " (synergy)"}
    return tuple(
        f"{names[i]} and {names[j]} interact by {index[i, j]:+.3f} ± {variance[i, j] ** 0.5:.3f}"
        + meaning[int(np.sign(round(index[i, j], 3)))]
        for i, j in combinations(range(len(names)), 2)
    )


def seed_of(task: str) -> int:
    """The orders of a task's traces are the same ones, so that what their replays share is played once."""
    return int(records.digest(["orders", task])[:8], 16)
