"""Shapley values of the agents of each trace, exact, by replaying it with coalitions of them absent.

The game is played on one trace (φ shared by all samples of a task would vanish under a group baseline). Its players
are the agents that spoke in it; v(N) is the trace's own score, at no cost; every other coalition S is replayed
`repeats` times with the absent agents replaced by what their protocol declares, so v(S) is a mean over replays. The
protocol defines the game: values under "bypass" and "base" answer different questions and are not to be compared.
Several turns of one agent share its φ equally, so the values of a trace sum to v(N) − v(∅) (under `players="all"`
less the φ of agents that never spoke).

Errors: v(S) has the unbiased sample variance of its repeats over R (for right/wrong p(1−p)/(R−1)); v(N) has none,
being this trace's; φ adds them by the squared Shapley weights, as if coalitions were independent. The same repeat
number means the same random numbers in every coalition, which makes v(S) positively correlated; φ takes differences
of them, so the error is conservative where all are correlated alike (tested), though not for every correlation.
Repeats that all agree, and a single repeat, give 0: that is "not estimated", not "certain".

Left out: sampling of permutations for teams above six. Source: Shapley (1953).
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Literal

import numpy as np
from pydantic import Field

from apps import records
from apps.credit import games, groups
from apps.leaf import unknown
from apps.records import Credit, Graded, Group, MeritError, Outcome, Replay

MOST_PLAYERS = 6

Protocol = Literal["bypass", "null", "base"]


class Options(records.Options):
    """Which game is played and what it may cost."""

    players: Literal["spoke", "all"] = Field("spoke", description="agents that spoke in the trace, or the whole team")
    protocol: Protocol = Field("bypass", description="what stands in for an absent agent that protocols does not name")
    protocols: dict[str, Protocol] = Field({}, description="what stands in for an absent agent, by role")
    repeats: int = Field(4, ge=1, description="replays of each coalition; 1 gives no intervals")
    share: float = Field(1.0, ge=0, le=1, description="share of tasks replayed; the others get score - group mean")
    rounds: int = Field(0, ge=0, description="replay only in the first so many rounds, 0 = in all; the DAG reads it")


def asks(options: Options) -> bool:
    return options.share > 0


def assign(group: Group, options: Options) -> Generator[list[Replay], list[Outcome], list[Credit]]:
    """φ of each agent in each trace. All replays of the group are asked for at once, so that they batch."""
    scores, team = groups.scores(group), groups.agents(group)
    check_protocols(options, team)
    if not chosen(group.task.id, options.share):
        return [centred(graded, graded.verdict.score - float(np.mean(scores)), team) for graded in group.graded]
    players = [check_size(team if options.players == "all" else g.trace.agents, g) for g in group.graded]
    wanted = [replay for trace, names in enumerate(players) for replay in coalitions(trace, names, options)]
    outcomes = (yield wanted) if wanted else []
    scored = iter([check_outcome(o, group, r) for o, r in zip(outcomes, wanted, strict=True)])
    return [value(graded, names, team, scored, options) for graded, names in zip(group.graded, players, strict=True)]


def coalitions(trace: int, players: tuple[str, ...], options: Options) -> Iterator[Replay]:
    """A replay for each coalition but the full one, by mask, and each repeat."""
    for mask in range(2 ** len(players) - 1):
        absent = [agent for i, agent in enumerate(players) if not mask >> i & 1]
        stand_ins = tuple((agent, options.protocols.get(agent, options.protocol)) for agent in absent)
        yield from (Replay(trace, stand_ins, repeat) for repeat in range(options.repeats))


def value(
    graded: Graded, players: tuple[str, ...], team: tuple[str, ...], scored: Iterator[float], options: Options
) -> Credit:
    """The credit of one trace; takes its (2**n − 1) · repeats scores from `scored`."""
    n, repeats = len(players), options.repeats
    replayed = np.array([next(scored) for _ in range((2**n - 1) * repeats)]).reshape(-1, repeats)
    values = np.append(replayed.mean(axis=1), graded.verdict.score)
    variances = np.append(variance_of_mean(replayed), 0.0)
    phi = dict(zip(players, games.shapley(values).tolist(), strict=True))
    error = dict(zip(players, np.sqrt(games.shapley_variance(variances)).tolist(), strict=True))
    spoken = [turn.agent for turn in graded.trace.turns]
    return Credit(
        graded.trace.id,
        tuple(phi[agent] / spoken.count(agent) for agent in spoken),
        tuple(error[agent] / spoken.count(agent) for agent in spoken),
        {agent: phi.get(agent, 0.0) for agent in team},
        {agent: error.get(agent, 0.0) for agent in team},
        notes(players, replayed, options),
    )


def variance_of_mean(replayed: np.ndarray) -> np.ndarray:
    """Unbiased variance of each row's mean, (coalitions, repeats) to (coalitions,); 0 for a single repeat."""
    repeats = replayed.shape[1]
    return replayed.var(axis=1, ddof=1) / repeats if repeats > 1 else np.zeros(len(replayed))


def notes(players: tuple[str, ...], replayed: np.ndarray, options: Options) -> tuple[str, ...]:
    """How the team did without each agent, and without all."""
    if not players:
        return ()
    full = 2 ** len(players) - 1
    missing = {full & ~(1 << i): f"{a} ({options.protocols.get(a, options.protocol)})" for i, a in enumerate(players)}
    if len(players) > 1:
        missing[0] = "everyone"
    return tuple(
        f"without {who}: right in {int((replayed[mask] >= 0.5).sum())} of {options.repeats} replays"
        for mask, who in missing.items()
    )


def centred(graded: Graded, value: float, team: tuple[str, ...]) -> Credit:
    """For a task outside the share: every turn gets score − group mean, as `uniform` would under a group baseline."""
    turns = len(graded.trace.turns)
    note = "not replayed (outside the share): the score less the group's mean"
    return Credit(graded.trace.id, (value,) * turns, (0.0,) * turns, dict.fromkeys(team, value), {}, (note,))


def chosen(task: str, share: float) -> bool:
    """Whether a task is replayed: by digest of its id, so never by order or by what else is in the run."""
    return int(records.digest(["shapley", task])[:8], 16) < share * 2**32


def check_protocols(options: Options, team: tuple[str, ...]) -> None:
    for role in options.protocols:
        if role not in team:
            raise MeritError(unknown("credit.shapley.protocols: role", role, list(team)))


def check_size(players: tuple[str, ...], graded: Graded) -> tuple[str, ...]:
    if len(players) > MOST_PLAYERS:
        raise MeritError(
            f"credit.shapley: trace {graded.trace.id!r} has {len(players)} players ({', '.join(players)}), at most "
            f"{MOST_PLAYERS} are exact ({2**MOST_PLAYERS - 1} coalitions); set credit.players=spoke, "
            "use a smaller team or another credit method (uniform, first_error)"
        )
    return players


def check_outcome(outcome: Outcome, group: Group, replay: Replay) -> float:
    if not np.isfinite(outcome.score):
        trace = group.graded[replay.trace].trace.id
        raise MeritError(f"credit.shapley: a replay of {trace!r} has the score {outcome.score}: not graded")
    return float(outcome.score)
