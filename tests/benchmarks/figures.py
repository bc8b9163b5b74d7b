"""What a benchmark reports, and how two ways are timed fairly: in turns, within one process, the median of five."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

RUNS = 5


@dataclass(frozen=True)
class Figure:
    """One measured value. Of a time or of memory less is better, of anything a second (unit "…/s") more."""

    name: str
    value: float | None  # None: not measured, for the reason in `remark`
    unit: str
    baseline: float | None = None  # the same of what it is compared with
    remark: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times better than the baseline."""
        if not self.value or not self.baseline:
            return None
        return self.value / self.baseline if self.unit.endswith("/s") else self.baseline / self.value

    def row(self) -> dict[str, Any]:
        return {**asdict(self), "ratio": self.ratio}


def seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def in_turns(ours: Callable[[], Any], theirs: Callable[[], Any], runs: int = RUNS) -> tuple[float, float]:
    """Median seconds of both, each warmed up once and then run in turns, so that what else the machine does hits both alike."""
    ours(), theirs()
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(runs)]
    mine, other = zip(*pairs, strict=True)
    return statistics.median(mine), statistics.median(other)


def table(figures: Iterable[Figure]) -> str:
    """As Markdown."""
    lines = ["| benchmark | value | unit | baseline | ratio | |", "|---|---:|---|---:|---:|---|"]
    for figure in figures:
        cells = (shown(figure.value), figure.unit, shown(figure.baseline), shown(figure.ratio), figure.remark)
        lines.append(f"| {figure.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def shown(value: float | None) -> str:
    """Three digits, or all before the point."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
