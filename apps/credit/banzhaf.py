"""What an agent adds on average over all coalitions of the others: β_i = 2^{1−n} Σ_{S⊆N∖i} [v(S∪i) − v(S)].

Banzhaf (1965). All coalitions weigh the same, where Shapley's value weighs all sizes the same: of the semivalues the
one least moved by noise in v (arXiv 2205.15466), at the price of efficiency, so its sum is not v(N) − v(∅) and there
is no residual.

Up to 6 players exact. Beyond it coalitions are drawn at random, each with its complement under the same random
numbers: β_i is the mean of ±[v(S) − v(N∖S)], + where i is in S; `budget` bounds the coalition values, and the errors
come from the pairs' spread. Agents that cannot be absent ("leave_out") are in every coalition, and without them there
is no team: theirs is the mean of v(S) − 0. `coalitions` tells how v(S) is played and what its errors leave out.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from apps import records
from apps.credit import coalitions, games
from apps.credit.coalitions import MOST_PLAYERS, Asking, Game
from apps.records import Group


class Options(coalitions.Replayed):
    """Which game is played and what it may cost."""

    budget: int = Field(512, ge=4, description="beyond 6 players: coalition values a trace at most, two a pair")


def asks(options: Options) -> bool:
    return options.share > 0


def assign(group: Group, options: Options) -> Asking:
    """β of each agent in each trace."""
    return (yield from coalitions.each(group, options, value))


def value(game: Game) -> Asking:
    """The credit of one trace."""
    game = yield from game.feasible()
    return (yield from (exact(game) if len(game.players) <= MOST_PLAYERS else sampled(game)))


def exact(game: Game) -> Asking:
    values, variances = yield from game.table()
    first = float(values.mean()), float(variances.sum() ** 0.5 / len(values))
    return game.credit(games.banzhaf(values), np.sqrt(games.banzhaf_variance(variances)), first)


def sampled(game: Game) -> Asking:
    """From pairs of a coalition and its complement; a pair's number is the repeat of its replays."""
    n, pairs = len(game.players), game.options.budget // 2
    rng = np.random.default_rng(int(records.digest(["pairs", game.group.task.id])[:8], 16))
    member_PN = rng.random((pairs, n)) < 0.5
    masks = [sum(1 << i for i in np.flatnonzero(row).tolist()) for row in member_PN]
    both = [(mask, number) for number, drawn in enumerate(masks) for mask in (drawn, game.full & ~drawn)]
    v_P2 = np.array((yield from game.ask(both))).reshape(pairs, 2)
    values, errors = from_pairs(member_PN, v_P2)
    first = float(v_P2.mean()), float(v_P2.mean(axis=1).std(ddof=1) / pairs**0.5)
    note = f"β from {pairs} random coalitions of {n} players and their complements"
    return game.credit(values, errors, first, (note,))


def from_pairs(member_PN: np.ndarray, v_P2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """β and its standard errors (N,) from who is in each coalition (P, N) and what it and its complement are worth."""
    shares_PN = np.where(member_PN, 1, -1) * (v_P2[:, :1] - v_P2[:, 1:])
    return shares_PN.mean(axis=0), shares_PN.std(axis=0, ddof=1) / len(shares_PN) ** 0.5
