"""How far methods agree with a truth, and with one another, by rank. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from apps.fidelity import measures
from apps.fidelity.measures import Judged


def with_truths(
    says: Mapping[str, Sequence[Judged]], truths: Mapping[str, Sequence[Judged]], units: Sequence[str]
) -> dict[str, Any]:
    """ρ of each method's values with each truth, over all turns, and its cost a trace. `units`: the task of each trace."""
    by_turn = [unit for unit, judged in zip(units, next(iter(truths.values())), strict=True) for _ in judged.values]
    methods = {}
    for name, judged in says.items():
        against = {
            f"spearman_{truth}": measures.correlation(flat(judged), flat(worth), by_turn)
            for truth, worth in truths.items()
        }
        costs = {what: float(np.mean([getattr(j, what) for j in judged])) for what in ("replays", "tokens")}
        methods[name] = {**against, **costs}
    return {"methods": methods, "truths": matrix(truths)}


def matrix(says: Mapping[str, Sequence[Judged]]) -> dict[str, Any]:
    """ρ of every two methods' values, over all turns; None where a side does not vary."""
    values = {name: flat(judged) for name, judged in says.items()}
    rows = [[rho(one, other) for other in values.values()] for one in values.values()]
    return {"names": list(values), "spearman": rows}


def rho(first: Sequence[float], second: Sequence[float]) -> float | None:
    x, y = measures.centred_ranks(first), measures.centred_ranks(second)
    products = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=1).sum(axis=0)
    value = float(measures.pearson(products[None])[0])
    return value if np.isfinite(value) else None


def flat(judged: Sequence[Judged]) -> list[float]:
    return [value for one in judged for value in one.values]
