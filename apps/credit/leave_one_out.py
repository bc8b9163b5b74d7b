"""What a trace loses when one agent is left out: v(N) − v(N∖i), from one coalition an agent.

The cheapest game that replays play: n · `repeats` replays, v(N) being the trace's own score. It has a blind spot: in a
redundant team it is 0 for everyone, since each is replaced by another (two critics that find the same error), where
Shapley's value shares the credit. Its values sum to nothing in particular, so there is no residual. v(∅) is not played.

An agent that cannot be absent ("leave_out") is worth v(N): without it there is no team. `coalitions` tells how v(S) is
played and what its errors leave out.
"""

from __future__ import annotations

import numpy as np

from apps.credit import coalitions
from apps.credit.coalitions import Asking, Game
from apps.records import Group


class Options(coalitions.Replayed):
    """Which game is played and what it may cost."""


def asks(options: Options) -> bool:
    return options.share > 0


def assign(group: Group, options: Options) -> Asking:
    """v(N) − v(N∖i) of each agent in each trace."""
    return (yield from coalitions.each(group, options, value))


def value(game: Game) -> Asking:
    """The credit of one trace."""
    game = yield from game.feasible()
    without = [game.full & ~(1 << i) for i in range(len(game.players))]
    yield from game.ask((mask, repeat) for mask in without for repeat in range(game.options.repeats))
    whole, variance = game.worth(game.full)
    left = np.array([game.worth(mask) for mask in without]).reshape(-1, 2)
    values, errors = whole - left[:, 0], np.sqrt(variance + left[:, 1])
    return game.credit(values, errors, (whole, variance**0.5), redundant(values))


def redundant(values: np.ndarray) -> tuple[str, ...]:
    if len(values) < 2 or values.any():
        return ()
    return ("nobody alone is missed: all are redundant, or nobody mattered; shapley tells the two apart",)
