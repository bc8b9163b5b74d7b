"""Games whose Shapley values are known by another route than `apps/credit/games.py`, and noisy teams.

Closed forms where there is one, else counting in whole numbers and fractions: arrivals (glove), numbers of coalitions
by weight (Mann & Shapley 1960, voting), dividends (Harsanyi 1963, any table). Nothing here imports the formulas that
it is the truth for. Tables are as there: entry `mask` is the value of the coalition with those bits, ∅ first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import comb, factorial

import numpy as np

Oracle = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (masks, draws), int64 (m,), to values (m,)


@dataclass(frozen=True, eq=False)
class Game:
    """A game and its truth."""

    name: str
    values: np.ndarray  # v (2**n,); of a noisy game the probability that the coalition is right
    shapley: np.ndarray  # φ (n,)
    noisy: bool = False  # an evaluation is a draw, 0 or 1

    @property
    def players(self) -> int:
        return len(self.shapley)


def free_of_noise(seed: int = 0) -> list[Game]:
    """The standard games, from 3 to 12 players."""
    rng = np.random.default_rng([seed, 1])
    return [
        worked_example(),
        additive([3, -1, 0, 2, 5, -4, 1, 1]),
        unanimity(8, (0, 2, 5)),
        majority(9),
        glove(3, 5),
        airport([1, 1, 2, 3, 5, 8, 8, 13, 20, 21]),
        random_game("random monotone", 8, rng, monotone=True),
        random_game("random", 8, rng),
        voting("voting: council of 1958", 12, (4, 4, 4, 2, 2, 1)),
        voting("voting: council of 1986", 54, (10, 10, 10, 10, 8, 5, 5, 5, 5, 3, 3, 2)),
        voting("voting: one large", 6, (4, 1, 1, 1, 1, 1, 1)),
    ]


def noisy_teams(count: int, seed: int = 0) -> list[Game]:
    """Teams of 3 to 8 whose answers are right with a probability that depends on who is there."""
    return [
        team(f"team {number + 1}", 3 + number % 6, np.random.default_rng([seed, 2, number])) for number in range(count)
    ]


def worked_example() -> Game:
    """Solver .5 alone, .7 with critic, .6 with reviser, 1 with both; nothing without: φ = 43/60, 1/6, 7/60."""
    return Game("worked example", np.array([0, 0.5, 0, 0.7, 0, 0.6, 0, 1]), np.array([43 / 60, 1 / 6, 7 / 60]))


def additive(worth: Sequence[float]) -> Game:
    """A coalition is worth the sum of its members: φ is their worth."""
    n = len(worth)
    return Game("additive", table(n, lambda members: sum(worth[i] for i in members)), np.array(worth, dtype=float))


def unanimity(n: int, needed: Sequence[int]) -> Game:
    """1 if all of `needed` are there, else 0: they share it equally."""
    values = table(n, lambda members: set(needed) <= set(members))
    return Game("unanimity", values, np.array([(i in needed) / len(needed) for i in range(n)]))


def majority(n: int) -> Game:
    """1 for more than half of the players: 1/n each, by symmetry."""
    return Game("majority", table(n, lambda members: 2 * len(members) > n), np.full(n, 1 / n))


def glove(left: int, right: int) -> Game:
    """As many pairs as there are left and right gloves; the first `left` players have left ones.

    A player adds a pair where fewer gloves of its own kind than of the other came before it (Shapley & Shubik 1969).
    """
    n = left + right
    values = table(n, lambda members: min(sum(i < left for i in members), sum(i >= left for i in members)))
    one, other = adds_a_pair(left, right), adds_a_pair(right, left)
    return Game("glove", values, np.array([float(one)] * left + [float(other)] * right))


def adds_a_pair(own: int, other: int) -> Fraction:
    """The chance that a player finds fewer of its `own` kind (it is one of them) than of the `other` before it."""
    n = own + other
    return sum(
        comb(own - 1, a) * comb(other, b) * before(a + b, n) for b in range(other + 1) for a in range(min(own, b))
    )


def airport(costs: Sequence[float]) -> Game:
    """A runway costs what its largest aeroplane needs; costs rise. Each stretch is shared by those that need it.

    φ_i = Σ_{k≤i} (c_k − c_{k−1})/(n − k + 1) (Littlechild & Owen 1973).
    """
    n, steps = len(costs), np.diff(costs, prepend=0)
    values = table(n, lambda members: max((costs[i] for i in members), default=0))
    return Game("airport", values, np.cumsum(steps / (n - np.arange(n))))


def voting(name: str, quota: int, weights: Sequence[int]) -> Game:
    """1 where the weights of the members reach the quota. φ is the power to turn a coalition (Shapley & Shubik 1954)."""
    values = table(len(weights), lambda members: sum(weights[i] for i in members) >= quota)
    return Game(name, values, np.array([float(power(quota, weights, i)) for i in range(len(weights))]))


def power(quota: int, weights: Sequence[int], i: int) -> Fraction:
    """Σ over sizes s of s!(n−s−1)!/n! times the coalitions of s others that fall short by at most i's weight."""
    n, counts = len(weights), {(0, 0): 1}  # (size, weight) -> how many coalitions of the others (Mann & Shapley 1960)
    for weight in (*weights[:i], *weights[i + 1 :]):
        for (size, total), number in list(counts.items()):
            counts[size + 1, total + weight] = counts.get((size + 1, total + weight), 0) + number
    return sum(
        (number * before(size, n) for (size, total), number in counts.items() if quota - weights[i] <= total < quota),
        Fraction(0),
    )


def random_game(name: str, n: int, rng: np.random.Generator, monotone: bool = False) -> Game:
    """Values drawn from [0, 1]; a monotone game gives a coalition the best of its parts and itself. v(∅) = 0."""
    values = rng.random(2**n)
    values[0] = 0
    for i in range(n if monotone else 0):
        without, joined = np.moveaxis(values.reshape(-1, 2, 2**i), 1, 0)
        np.maximum(without, joined, out=joined)
    return Game(name, values, by_dividends(values))


def team(name: str, n: int, rng: np.random.Generator) -> Game:
    """p(S) = logistic(skills of the members and of their pairs, less a bias): most help, some harm."""
    skill, pairs = rng.normal(0.7, 0.7, n), np.triu(rng.normal(0, 0.3, (n, n)), 1)
    member = np.arange(2**n)[:, None] >> np.arange(n) & 1
    logit = member @ skill + np.einsum("si,ij,sj->s", member, pairs, member) - 1.5
    values = 1 / (1 + np.exp(-logit))
    return Game(name, values, by_dividends(values), noisy=True)


def by_dividends(values: np.ndarray) -> np.ndarray:
    """φ_i = Σ_{S∋i} d(S)/|S|, d(S) = Σ_{T⊆S} (−1)^{|S|−|T|} v(T) (Harsanyi 1963), in exact fractions."""
    dividends = [Fraction(value) for value in values.tolist()]
    n = (len(dividends) - 1).bit_length()
    for i in range(n):
        for mask in range(2**n):
            if mask >> i & 1:
                dividends[mask] -= dividends[mask ^ 1 << i]
    shares = [d / max(bin(mask).count("1"), 1) for mask, d in enumerate(dividends)]
    return np.array([float(sum(s for mask, s in enumerate(shares) if mask >> i & 1)) for i in range(n)])


def before(size: int, n: int) -> Fraction:
    """The chance that those before a player in a random order of n are one given set of this size."""
    return Fraction(factorial(size) * factorial(n - size - 1), factorial(n))


def table(n: int, value: Callable[[list[int]], float]) -> np.ndarray:
    """A game from a function of its members."""
    return np.array([value([i for i in range(n) if mask >> i & 1]) for mask in range(2**n)], dtype=float)


def oracle(game: Game, seed: int = 0, coupling: float = 1.0) -> Oracle:
    """Evaluations of a game. In a noisy one, 1 where a uniform random number lies under p(S).

    The number is the same for all coalitions of a draw with probability `coupling`, else the coalition's own. 1 is
    what common random numbers can do at best; in replays of agents a changed prompt may change what is sampled.
    """
    if not game.noisy:
        return lambda masks, draws: game.values[masks]

    def value(masks: np.ndarray, draws: np.ndarray) -> np.ndarray:
        own, number = draws * len(game.values) + masks, uniform(seed, draws)
        if coupling < 1:
            number = np.where(uniform(seed + 1, own) < coupling, number, uniform(seed + 2, own))
        return (number < game.values[masks]).astype(float)

    return value


def uniform(seed: int, keys: np.ndarray) -> np.ndarray:
    """A random number in [0, 1) for each key (int64): SplitMix64 of the key (Steele et al. 2014)."""
    with np.errstate(over="ignore"):  # wrapping is meant
        x = (np.asarray(keys).astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        x ^= np.random.SeedSequence(seed).generate_state(1, np.uint64)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            x = (x ^ x >> np.uint64(shift)) * np.uint64(factor)
        return ((x ^ x >> np.uint64(31)) >> np.uint64(11)) * 2.0**-53
