"""Every estimator of Shapley values on every game with a known answer: error against cost, and where one loses.

Pure functions; no stage, no model. Errors are against the truth of `known_games`. Monte-Carlo error is c/√evaluations,
so c² = error² · evaluations compares two estimators by the evaluations that each needs for the same error.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from apps import records
from apps.credit import estimators, games
from apps.fidelity import known_games
from apps.fidelity.known_games import Game

SCHEMES = ("plain", "antithetic", "stratified")
EXACT = 1e-9  # an error below it is rounding
UNIT = 12 * 13  # evaluations of a stratified unit of the largest game: an estimate takes at least one
TARGET = 0.5  # of plain sampling's evaluations, in the median


class Options(records.Options):
    """How much is measured."""

    budgets: tuple[Annotated[int, Field(ge=UNIT)], ...] = Field(
        (240, 480, 960), description="evaluations that an estimate may take", min_length=2
    )
    seeds: int = Field(32, ge=4, description="estimates of each kind, each with other orders and draws")
    teams: int = Field(12, ge=1, description="noisy team games, of 3 to 8 players")
    couplings: tuple[float, ...] = Field(
        (0.9, 0.5), description="also measured: how often coalitions share their number"
    )
    width: float = Field(0.2, gt=0, description="interval at which an adaptive estimate ends")
    seed: int = Field(0, ge=0, description="of games, orders and draws")


@dataclass(frozen=True, eq=False)
class Cell:
    """One estimator on one game at one budget, over seeds."""

    game: Game
    estimator: str  # "table", a scheme of permutation sampling, or "adaptive"
    draws: str  # "once", "fresh" or "common"
    budget: int
    coupling: float  # how often coalitions of a draw share their random number
    shares: np.ndarray  # φ estimated (seeds, n)
    errors: np.ndarray  # its standard errors (seeds, n)
    evaluations: np.ndarray  # (seeds,)

    @property
    def missed(self) -> np.ndarray:
        """φ estimated less the truth, (seeds, n)."""
        return self.shares - self.game.shapley

    @property
    def rmse(self) -> float:
        return float(np.sqrt((self.missed**2).mean()))

    @property
    def price(self) -> np.ndarray:
        """c² of each seed: squared error times evaluations, (seeds,)."""
        return (self.missed**2).mean(axis=1) * self.evaluations

    def row(self) -> dict[str, Any]:
        """For a table: errors, the coverage of 95 % intervals, and the residual against the true v(N) − v(∅)."""
        covered = np.abs(self.missed) <= estimators.Z * self.errors + EXACT
        return {
            "game": self.game.name,
            "players": self.game.players,
            "noisy": self.game.noisy,
            "estimator": self.estimator,
            "draws": self.draws,
            "coupling": self.coupling,
            "budget": self.budget,
            "evaluations": float(self.evaluations.mean()),
            "rmse": self.rmse,
            "max_error": float(np.abs(self.missed).max(axis=1).mean()),
            "coverage": float(covered.mean()),
            "residual": float(np.abs(games.residual(self.game.values, self.shares)).mean()),
        }


def run(options: Options | None = None) -> dict[str, Any]:
    """All that is measured, as JSON: `rows` (one a cell), `slopes`, `halving`, `losses`."""
    options = options or Options()
    cells = list(measured(options))
    return {
        "rows": [cell.row() for cell in cells],
        "slopes": slopes(cells),
        "halving": halving(cells),
        "losses": losses(cells),
    }


def measured(options: Options) -> Iterable[Cell]:
    """Every estimator that suits a game, on every game, at every budget."""
    for game in known_games.free_of_noise(options.seed):
        yield whole(game, "once", 2**game.players, options)
        for budget in options.budgets:
            yield from (sampled(game, s, d, budget, options) for s in SCHEMES for d in ("once", "fresh"))
    for game in known_games.noisy_teams(options.teams, options.seed):
        for budget in options.budgets:
            yield from (whole(game, d, budget, options) for d in ("fresh", "common") if budget >= 2**game.players)
            yield from (sampled(game, s, d, budget, options) for s in SCHEMES for d in ("fresh", "common"))
        yield sampled(game, "antithetic", "common", 20 * max(options.budgets), options, width=options.width)
        for coupling in options.couplings:
            yield sampled(game, "antithetic", "common", max(options.budgets), options, coupling)


def sampled(
    game: Game, scheme: str, draws: str, budget: int, options: Options, coupling: float = 1.0, width: float = 0.0
) -> Cell:
    """Permutation sampling, an estimate a seed. With `width` it is adaptive."""
    unit = {"plain": 1, "antithetic": 2, "stratified": game.players}[scheme] * (game.players + 1)
    # In one wave where nothing is decided between two, and errors of noise only where there is noise.
    how = {"budget": budget, "width": width, "wave": 16 if width else 1 + budget // unit, "span": float(game.noisy)}
    found = [
        estimators.drive(
            estimators.estimate(game.players, scheme, draws, seed=seed, **how),
            known_games.oracle(game, seed, coupling),
        )
        for seed in range(options.seed, options.seed + options.seeds)
    ]
    name = "adaptive" if width else scheme
    shares, errors = np.array([e.values for e in found]), np.array([e.errors for e in found])
    return Cell(game, name, draws, budget, coupling, shares, errors, np.array([e.evaluations for e in found]))


def whole(game: Game, draws: str, budget: int, options: Options) -> Cell:
    """The formula on the whole table, every coalition valued as often as the budget allows."""
    size, repeats = 2**game.players, budget // 2**game.players
    seeds = range(options.seed, options.seed + options.seeds)
    masks, number = np.tile(np.arange(size), repeats), np.arange(repeats * size)
    number = number // size if draws == "common" else number
    valued = np.stack([known_games.oracle(game, seed)(masks, number) for seed in seeds]).reshape(-1, repeats, size)
    shares = games.shapley(valued)  # of each repeat by itself, so that the noise that coalitions share is in the spread
    errors = np.zeros((len(seeds), game.players))
    if game.noisy:
        errors = np.stack([estimators.standard_errors(of_seed, 1.0) for of_seed in shares])
    return Cell(game, "table", draws, budget, 1.0, shares.mean(axis=1), errors, np.full(len(seeds), repeats * size))


def slopes(cells: Sequence[Cell]) -> dict[str, dict[str, Any]]:
    """The slope of log error on log evaluations, by estimator and draws, over games: Monte Carlo has −1/2.

    Without "once", whose remembered coalitions make later evaluations worth more.
    """
    fitted: dict[str, list[float]] = {}
    for (_, estimator, draws, coupling), same in alike(cells).items():
        if len(same) > 1 and draws != "once" and coupling == 1 and min(cell.rmse for cell in same) > EXACT:
            x, y = np.log([c.evaluations.mean() for c in same]), np.log([c.rmse for c in same])
            fitted.setdefault(f"{estimator}, {draws}", []).append(float(np.polyfit(x, y, 1)[0]))
    return {
        name: {"mean": float(np.mean(found)), "low": min(found), "high": max(found), "games": len(found)}
        for name, found in fitted.items()
    }


def halving(cells: Sequence[Cell]) -> dict[str, Any]:
    """The evaluations that a variant needs in noisy teams for the error of plain sampling with fresh draws.

    As a share of plain sampling's; the target is a median of .5 for antithetic orders with common random numbers.
    """
    rows = [row for row in compared(cells) if row["noisy"]]
    chosen = [row for row in rows if named(row) == "antithetic, common"]
    medians = {name: float(np.median([r["ratio"] for r in rows if named(r) == name])) for name in map(named, rows)}
    return {"median": medians["antithetic, common"], "target": TARGET, "games": chosen, "medians": medians}


def losses(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Where a variant needs more evaluations than plain sampling of the same draws, by two standard errors and more."""
    lost = [row for row in compared(cells, same_draws=True) if row["ratio"] - 2 * row["error"] > 1]
    return sorted(lost, key=lambda row: -row["ratio"])


def compared(cells: Sequence[Cell], same_draws: bool = False) -> list[dict[str, Any]]:
    """Each variant against plain sampling with fresh draws (or its own): the ratio of c², and its standard error.

    Games on which plain sampling makes no error are left out, and draws "once", which are no Monte Carlo.
    """
    groups, rows = alike(cells), []
    for (game, estimator, draws, coupling), same in groups.items():
        against = groups.get((game, "plain", draws if same_draws and coupling == 1 else "fresh", 1.0), same)
        if against is same or draws == "once" or estimator == "adaptive" or against[0].rmse < EXACT:
            continue
        ratio, error = ratio_of_means(*(np.mean([cell.price for cell in side], axis=0) for side in (same, against)))
        noisy = same[0].game.noisy
        known = {"game": game, "players": same[0].game.players, "noisy": noisy, "estimator": estimator}
        rows.append({**known, "draws": draws, "coupling": coupling, "ratio": ratio, "error": error})
    return rows


def named(row: dict[str, Any]) -> str:
    """A variant in words."""
    return f"{row['estimator']}, {row['draws']}" + (f", coupling {c:g}" if (c := row["coupling"]) != 1 else "")


def alike(cells: Sequence[Cell]) -> dict[tuple[str, str, str, float], list[Cell]]:
    """Cells that differ in budget alone."""
    groups: dict[tuple[str, str, str, float], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.game.name, cell.estimator, cell.draws, cell.coupling), []).append(cell)
    return groups


def ratio_of_means(over: np.ndarray, under: np.ndarray) -> tuple[float, float]:
    """mean(over)/mean(under) of paired samples (m,), and its standard error to first order (Cochran 1977, 6.13)."""
    ratio = over.mean() / under.mean()
    return float(ratio), float((over - ratio * under).std(ddof=1) / np.sqrt(len(over)) / under.mean())
