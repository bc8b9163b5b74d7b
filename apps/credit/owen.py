"""Shapley values where agents form unions: first over the unions, then within each, the other unions whole or absent.

For teams in which a duty has several agents (three critics): a union bargains as one, so a second critic divides the
critics' share instead of adding to it at the cost of the others. Owen (1977). Efficient: Σφ = v(N) − v(∅). With unions
of one, and with one union of all, it is the Shapley value. It needs fewer coalitions than that: for three unions of
two agents 32 of 64.

Agents that cannot be absent ("leave_out") come first and share v(R) equally, as in `shapley`. `coalitions` tells how
v(S) is played and what its errors leave out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from apps.credit import coalitions, games, groups
from apps.credit.coalitions import Asking, Game
from apps.leaf import unknown
from apps.records import Group, MeritError

MOST_PLAYERS, MOST_COALITIONS = 12, 256


class Options(coalitions.Replayed):
    """Which game is played, by which unions."""

    unions: dict[str, str] = Field({}, description="role -> name of its union; who is not named joins its duty's")


def asks(options: Options) -> bool:
    return options.share > 0


def assign(group: Group, options: Options) -> Asking:
    """Owen's value of each agent in each trace."""
    team = groups.agents(group)
    for role in options.unions:
        if role not in team:
            raise MeritError(unknown("credit.unions: role", role, list(team)))
    return (yield from coalitions.each(group, options, value))


def value(game: Game) -> Asking:
    """The credit of one trace."""
    game = yield from game.feasible()
    unions = [union(game, player) for player in game.players]
    values, variances = yield from game.table(wanted(unions, game))
    phi, errors = games.owen(values, unions), np.sqrt(games.owen_variance(variances, unions))
    return game.credit(phi, errors, game.first() if game.required else (0.0, 0.0), note(game, unions), efficient=True)


def union(game: Game, agent: str) -> str:
    """The union of an agent: as it was given, else its duty, else it stands alone."""
    return game.options.unions.get(agent) or game.group.duties.get(agent) or agent


def wanted(unions: Sequence[str], game: Game) -> np.ndarray:
    """The coalitions that the value rests on. MeritError where they are too many."""
    labels = tuple(unions.index(name) for name in unions)
    if len(unions) <= MOST_PLAYERS and len(masks := games.needed(games.owen_coefficients(labels))) <= MOST_COALITIONS:
        return masks
    raise MeritError(
        f"credit.owen: trace {game.graded.trace.id!r} has {len(unions)} players in {len(set(unions))} unions; at most "
        f"{MOST_PLAYERS} players and {MOST_COALITIONS} coalitions are replayed. Set credit.unions to fewer, larger "
        "unions, or take credit.name=shapley, which samples"
    )


def note(game: Game, unions: Sequence[str]) -> tuple[str, ...]:
    """Who bargains together; "" where all stand alone."""
    members = {name: [p for p, own in zip(game.players, unions, strict=True) if own == name] for name in unions}
    told = [f"{' and '.join(who)} ({name})" for name, who in members.items() if len(who) > 1]
    return (f"bargain as one: {'; '.join(told)}",) if told else ()
