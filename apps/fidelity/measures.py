"""How often a method names the guilty, and how well its values agree with the truth. Pure functions on plain records.

A method accuses the agent, and the turn, of its lowest value, if that lies below −MARGIN; of equal ones the first; else it
accuses nobody. A fault counts as *single* where it struck one agent, and as having *made the team fail* where the team
failed and, with the base model in the guilty agents' place from the first struck turn on, is right in at least half of
its replays: what would have failed anyway says nothing about who is named.

Every figure is a share with a 95 % interval that draws whole tasks (apps/evaluation/statistics.py).
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from apps.evaluation import statistics

MARGIN = 0.1  # of a value: smaller ones accuse nobody, and their signs do not count
DRAWS = 2_000  # of tasks, for the interval of a correlation

Name = str
Hits = list[bool]


@dataclass(frozen=True, slots=True)
class Judged:
    """What a method says of one trace, and at what price."""

    values: tuple[float, ...]  # one a turn
    agents: dict[str, float]
    replays: float = 0.0  # that it asked for, as the trace's part of its group's
    tokens: float = 0.0  # that were sampled for them


@dataclass(frozen=True, slots=True)
class Played:
    """One trace, and all that is known of it."""

    case: str
    unit: str  # the task, of which there are several traces
    speakers: tuple[str, ...]  # the agent of each turn
    outcome: float  # the score
    truth: tuple[float, ...]  # what each turn was worth
    methods: dict[str, Judged]
    struck: dict[int, str] = field(default_factory=dict)  # turn -> the kind of the fault that struck it
    undone: float | None = None  # mean score had the base model spoken for the guilty from the first struck turn on
    habit: bool = False  # a fault that struck has rate 1
    planted: bool = False  # the team has faults, struck or not

    @property
    def guilty(self) -> set[str]:
        return {self.speakers[turn] for turn in self.struck}

    @property
    def failed(self) -> bool:
        return self.outcome < 0.5

    @property
    def ruined(self) -> bool:
        """Whether what struck made the team fail."""
        return self.failed and self.undone is not None and self.undone >= 0.5


def lowest(values: Sequence[float], margin: float = MARGIN) -> int | None:
    """The place of the lowest value, the first of equals; None where none lies below −margin."""
    place = int(np.argmin(values)) if len(values) else 0
    return place if len(values) and values[place] < -margin else None


def accused_agent(played: Played, judged: Judged) -> str | None:
    """Whom a method accuses; of equal agents the one that spoke first."""
    order = list(dict.fromkeys([*played.speakers, *judged.agents]))
    place = lowest([judged.agents.get(agent, 0.0) for agent in order])
    return None if place is None else order[place]


def lowest_two(played: Played, judged: Judged) -> set[str]:
    order = list(dict.fromkeys([*played.speakers, *judged.agents]))
    return set(sorted(order, key=lambda agent: judged.agents.get(agent, 0.0))[:2])


def hits(played: Played, method: str) -> dict[Name, Hits]:
    """What one trace says of every figure: a list of right and wrong for those that it says anything of."""
    judged = played.methods[method]
    agent, turn = accused_agent(played, judged), lowest(judged.values)
    found: dict[Name, Hits] = {"sign_errors": sign_errors(judged.values, played.truth)}
    if not played.struck:
        harmless = turn is not None and played.truth[turn] >= -MARGIN
        blamed = agent is not None or turn is not None
        found |= {"false_blame": [blamed], "false_blame_harmless": [harmless]}
        return found | {"false_blame_unstruck" if played.planted else "false_blame_no_fault": [blamed]}
    if len(played.guilty) > 1:
        if played.ruined:
            found |= {"double_agent": [agent in played.guilty], "double_turn": [turn in played.struck]}
            found |= {"double_both": [lowest_two(played, judged) == played.guilty]}
        return found
    named = {"agent_top1": [agent in played.guilty], "turn_top1": [turn in played.struck]}
    if played.ruined:
        return found | {("habit_" if played.habit else "") + name: hit for name, hit in named.items()}
    return found if played.failed else found | {"repaired_" + name: hit for name, hit in named.items()}


def sign_errors(values: Sequence[float], truth: Sequence[float]) -> Hits:
    """For each turn that truly mattered: whether its value has the opposite sign."""
    return [v * t < 0 for v, t in zip(values, truth, strict=True) if abs(t) > MARGIN]


FIGURES = (
    "agent_top1",
    "turn_top1",
    "habit_agent_top1",
    "habit_turn_top1",
    "repaired_agent_top1",
    "repaired_turn_top1",
    "double_agent",
    "double_turn",
    "double_both",
    "false_blame",
    "false_blame_no_fault",
    "false_blame_unstruck",
    "false_blame_harmless",
    "sign_errors",
)


def figures(traces: Sequence[Played], method: str) -> dict[str, Any]:
    """All figures of a method: {value, low, high, n}, None where there was nothing to measure; and its cost a trace."""
    by_unit: dict[str, dict[Name, Hits]] = defaultdict(lambda: defaultdict(list))
    for played in traces:
        for name, found in hits(played, method).items():
            by_unit[played.unit][name] += found
    units = list(by_unit.values())
    shares = estimated(units, FIGURES)
    judged = [played.methods[method] for played in traces]
    return {
        **shares,
        "spearman": spearman(traces, method),
        "replays": float(np.mean([j.replays for j in judged])),
        "tokens": float(np.mean([j.tokens for j in judged])),
    }


def estimated(units: Sequence[Mapping[Name, Hits]], names: Sequence[Name]) -> dict[str, Any]:
    """Shares of `names` over units, each with its interval."""
    counted = np.array([[sum(unit.get(name, ())) for name in names] for unit in units], dtype=float)
    of = np.array([[len(unit.get(name, ())) for name in names] for unit in units], dtype=float)
    found = statistics.estimates(counted, of, np.eye(len(names)))
    return {name: plain(estimate) for name, estimate in zip(names, found, strict=True)}


def spearman(traces: Sequence[Played], method: str) -> dict[str, Any]:
    """Rank correlation of a method's values with the truth, over all turns of all traces."""
    units = [played.unit for played in traces for _ in played.truth]
    values = [v for played in traces for v in played.methods[method].values]
    return correlation(values, [t for played in traces for t in played.truth], units)


def correlation(first: Sequence[float], second: Sequence[float], units: Sequence[str]) -> dict[str, Any]:
    """Spearman's ρ, ties sharing their mean rank, with an interval that draws whole units.

    Ranks are those of the whole sample, in every draw. None where one side has a single value.
    """
    x, y = centred_ranks(first), centred_ranks(second)
    products = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=1)
    _, unit = np.unique(list(units), return_inverse=True)
    sums = np.zeros((unit.max() + 1 if len(unit) else 0, 6))
    np.add.at(sums, unit, products)
    value = float(pearson(sums.sum(axis=0)[None])[0])
    drawn = pearson(statistics.resampled(sums, draws=DRAWS))
    drawn = drawn[np.isfinite(drawn)]
    interval = statistics.percentiles(drawn, 0.95) if len(drawn) else statistics.Interval(np.nan, np.nan)
    return plain(statistics.Estimate(value, interval.low, interval.high, len(x)))


def centred_ranks(values: Sequence[float]) -> np.ndarray:
    """Ranks (n,), mean 0; equal values (to 9 digits: a sum in another order is the same value) share their mean rank."""
    _, place, count = np.unique(np.round(np.asarray(values, float), 9), return_inverse=True, return_counts=True)
    ends = np.cumsum(count)
    return ((ends - count + ends - 1) / 2)[place] - (len(place) - 1) / 2


def pearson(sums: np.ndarray) -> np.ndarray:
    """r from rows of (n, Σx, Σy, Σx², Σy², Σxy); NaN where a side does not vary."""
    n, x, y, xx, yy, xy = sums.T
    spread = np.sqrt(np.maximum(n * xx - x * x, 0) * np.maximum(n * yy - y * y, 0))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(spread > statistics.DUST, (n * xy - x * y) / spread, np.nan)


def plain(estimate: statistics.Estimate) -> dict[str, Any]:
    """As JSON has it: None for what is not a number."""
    given = dataclasses.asdict(estimate)
    return {name: None if isinstance(v, float) and not np.isfinite(v) else v for name, v in given.items()}
