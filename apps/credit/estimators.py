"""Shapley values of a game too large for its table, estimated from orders in which the players may arrive.

Not a credit method: how a method finds out which replays it wants. φ_i is the mean, over all orders, of what i adds
to those before it; n + 1 evaluations tell what every player adds in one order (Castro et al. 2009). Orders are drawn
in independent *units*, whose spread gives the standard errors:

- "plain": an order;
- "antithetic": an order and its reverse (Mitchell et al. 2022, arXiv 2104.12199);
- "stratified": the n rotations of an order, so that each player stands once in each position (cyclic Latin squares;
  the strata are those of Castro et al. 2017, who draw each stratum by itself and lose efficiency).

An evaluation is a coalition and a *draw*, the number of its random numbers: equal draws mean equal random numbers,
whatever the coalition. "once": the game has none, and a coalition is valued once; "fresh": every evaluation has its
own; "common": the coalitions of an order (and of its reverse) share one, so that noise cancels in their differences.

Left out: orders that leave coalitions out (`games.precedence` has them), and control variates.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Literal, get_args

import numpy as np

from apps.credit import games
from apps.leaf import unknown
from apps.records import MeritError

Scheme = Literal["plain", "antithetic", "stratified"]
Draws = Literal["once", "fresh", "common"]
Evaluation = tuple[int, int]  # the mask of a coalition, and its draw
Asking = Generator[np.ndarray, np.ndarray, "Estimate"]  # yields int64 (m, 2), evaluations; is sent their values (m,)

MOST_PLAYERS = 62  # a coalition is a mask of 64 bits
KNOWN = -1  # the draw of coalitions whose value is given
Z = 1.96  # standard errors on either side of an interval of 95 %


@dataclass(frozen=True, eq=False)
class Estimate:
    """Shapley values, how sure they are, and what they cost."""

    values: np.ndarray  # φ (n,)
    errors: np.ndarray  # (n,) standard errors; 0 where φ is exact, inf where they cannot be told
    evaluations: int  # how many were asked for
    orders: int  # how many were averaged
    residual: float  # Σφ − (v(N) − v(∅)), both as the orders saw them: 0 but for rounding, as orders are whole

    @property
    def width(self) -> float:
        """Of the widest 95 % interval of a player."""
        return 2 * Z * float(self.errors.max())


def estimate(
    n: int,
    scheme: Scheme = "antithetic",
    draws: Draws = "common",
    *,
    budget: int,
    width: float = 0.0,
    wave: int = 16,
    known: Mapping[int, float] | None = None,
    span: float = 1.0,
    seed: int = 0,
) -> Asking:
    """φ of a game of n players, by asking for evaluations a wave at a time until it is told enough.

    It ends when no 95 % interval is wider than `width` (0: not for that reason), when the next unit would take more
    than `budget` evaluations, or when a game of draws "once" is known whole, and φ exact. `wave` counts units. `known`
    are coalitions that need no evaluation, such as v(N). A larger budget takes the same orders and goes on. `span` is
    the largest value less the smallest, 1 for scores; see `standard_errors`. MeritError: a budget below one unit.
    """
    check(n, scheme, draws, wave)
    rng = np.random.default_rng(seed)
    seen: dict[Evaluation, float] = {(mask, KNOWN): value for mask, value in (known or {}).items()}
    played: list[np.ndarray] = []  # orders (units, orders of a unit, n) of each wave
    came: list[np.ndarray] = []  # what their chains are worth (units, orders of a unit, n + 1)
    spent = 0
    for number in count():
        orders = arrivals(rng, n, scheme, wave)
        units = evaluations(orders, numbered((*orders.shape[:2], n + 1), scheme, draws, number), known or {})
        fit, asked = fitting(units, seen, budget - spent)
        if asked:
            seen |= zip(asked, checked((yield np.array(asked, dtype=np.int64)), asked), strict=True)
        spent += len(asked)
        if not fit and not played:
            raise MeritError(too_small(budget, *orders.shape[1:]))
        played.append(orders[:fit])
        came.append(np.array([seen[e] for unit in units[:fit] for e in unit]).reshape(*orders[:fit].shape[:2], n + 1))
        if draws == "once" and len(seen) == 2**n:
            return exact(seen, played, spent)
        if fit < wave:
            return averaged(np.concatenate(played), np.concatenate(came), spent, span)
        if width and (found := averaged(np.concatenate(played), np.concatenate(came), spent, span)).width <= width:
            return found


def drive(asking: Asking, value: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Estimate:
    """Answers an estimate from an oracle, `value(masks, draws)`, both int64 (m,), to float (m,)."""
    sent = None
    while True:
        try:
            asked = asking.send(sent)
        except StopIteration as end:
            return end.value
        sent = value(asked[:, 0], asked[:, 1])


def arrivals(rng: np.random.Generator, n: int, scheme: Scheme, units: int) -> np.ndarray:
    """Independent units of orders, (units, orders of a unit, n): the player at each position."""
    order = rng.permuted(np.tile(np.arange(n), (units, 1)), axis=1)
    if scheme == "antithetic":
        return np.stack([order, order[:, ::-1]], axis=1)
    if scheme == "stratified":
        return order[:, (np.arange(n)[:, None] + np.arange(n)) % n]
    return order[:, None]


def coalitions(orders: np.ndarray) -> np.ndarray:
    """The chain of each order, (..., n) to (..., n + 1): ∅, then each player joins, as masks."""
    joined = np.cumsum(np.int64(1) << orders.astype(np.int64), axis=-1)
    return np.concatenate([np.zeros_like(joined[..., :1]), joined], axis=-1)


def marginals(orders: np.ndarray, values: np.ndarray) -> np.ndarray:
    """What each *player* adds in each order (..., n), from the values of its chain (..., n + 1)."""
    added = np.empty(orders.shape)
    np.put_along_axis(added, orders, np.diff(values, axis=-1), axis=-1)
    return added


def numbered(shape: tuple[int, int, int], scheme: Scheme, draws: Draws, wave: int) -> np.ndarray:
    """The draw of each evaluation of the `wave`-th wave, int64 of shape (units, orders of a unit, n + 1)."""
    if draws == "once":
        return np.zeros(shape, dtype=np.int64)
    each = (np.arange(np.prod(shape)) + wave * np.prod(shape)).reshape(shape)
    if draws == "fresh":
        return each
    # A pair that shares a draw is valued once at ∅ and N. All rotations of an order would leave too few draws.
    return each // (shape[2] * (2 if scheme == "antithetic" else 1))


def evaluations(orders: np.ndarray, numbers: np.ndarray, known: Iterable[int]) -> list[list[Evaluation]]:
    """The evaluations that each unit rests on, chain by chain; orders (units, …, n), draws (units, …, n + 1)."""
    masks = coalitions(orders).reshape(len(orders), -1)
    numbers = np.where(np.isin(masks, list(known)), KNOWN, numbers.reshape(masks.shape))
    return [list(zip(*unit, strict=True)) for unit in zip(masks.tolist(), numbers.tolist(), strict=True)]


def fitting(units: list[list[Evaluation]], seen: Mapping[Evaluation, float], room: int) -> tuple[int, list[Evaluation]]:
    """How many of the first units can be had for `room` evaluations, and those that are still to be asked for."""
    asked: dict[Evaluation, None] = {}
    for fit, unit in enumerate(units):
        new = dict.fromkeys(e for e in unit if e not in seen and e not in asked)
        if len(asked) + len(new) > room:
            return fit, list(asked)
        asked |= new
    return len(units), list(asked)


def averaged(orders: np.ndarray, values: np.ndarray, spent: int, span: float) -> Estimate:
    """φ as the mean over units; orders (units, orders of a unit, n), values (units, orders of a unit, n + 1)."""
    shares = marginals(orders, values).mean(axis=1)
    phi, gain = shares.mean(axis=0), (values[..., -1] - values[..., 0]).mean()
    return Estimate(phi, standard_errors(shares, span), spent, len(shares) * orders.shape[1], float(phi.sum() - gain))


def standard_errors(shares: np.ndarray, span: float) -> np.ndarray:
    """Of the mean of independent units (m, n) to (n,), as if two more had come, span/2 to either side of the mean.

    Few replays that are right or wrong often agree by chance; without the two (in the manner of Agresti & Coull 1998)
    they would pass for certain. span = 0 is the plain standard error, for games without noise.
    """
    units, more = len(shares), 2 if span else 0
    squares = ((shares - shares.mean(axis=0)) ** 2).sum(axis=0) + span**2 / 2
    degrees = units - 1 + more
    return np.sqrt(squares / degrees / units) if degrees else np.full(shares.shape[1], np.inf)


def exact(seen: Mapping[Evaluation, float], played: list[np.ndarray], spent: int) -> Estimate:
    """φ of a game of which every coalition is known."""
    table = np.array([value for _, value in sorted((mask, value) for (mask, _), value in seen.items())])
    phi = games.shapley(table)
    orders = sum(wave.shape[0] * wave.shape[1] for wave in played)
    return Estimate(phi, np.zeros_like(phi), spent, orders, float(games.residual(table, phi)))


def too_small(budget: int, orders: int, n: int) -> str:
    return (
        f"estimate: a budget of {budget} evaluations is less than one unit, {orders} orders of {n} players "
        f"(up to {orders * (n + 1)}); raise it, or take the scheme plain (up to {n + 1})"
    )


def checked(values: np.ndarray, asked: list[Evaluation]) -> list[float]:
    values = np.asarray(values, dtype=np.float64)
    if values.shape != (len(asked),):
        raise ValueError(f"{len(asked)} evaluations were asked for, values of shape {values.shape} came")
    if not np.isfinite(values).all():
        mask, draw = asked[int(np.argmin(np.isfinite(values)))]
        raise MeritError(f"estimate: coalition {mask:#b}, draw {draw}, has no finite value; grade every replay")
    return values.tolist()


def check(n: int, scheme: str, draws: str, wave: int) -> None:
    if scheme not in get_args(Scheme):
        raise MeritError(unknown("estimate: scheme", scheme, list(get_args(Scheme))))
    if draws not in get_args(Draws):
        raise MeritError(unknown("estimate: draws", draws, list(get_args(Draws))))
    if not 1 <= n <= MOST_PLAYERS:
        raise MeritError(f"estimate: a game has 1 to {MOST_PLAYERS} players, given {n}")
    if wave < 1:
        raise MeritError(f"estimate: a wave has at least 1 unit, given {wave}")
