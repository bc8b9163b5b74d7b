"""How busy a run kept its machines: the share of cores or devices at work, and a figure of who did what when.

Told of are the tasks that the run made, not what it found in the store. On processors what counts is the processor's time that
tasks used; on accelerators the devices that they held. A run that was stopped and gone on with has several sessions: each counts
from its first task to its last, and the figure has them side by side without the time between.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from apps.report import figures

ROWS, SPANS = 40, 1500  # more workers or tasks than these are drawn together
BINS = 160
LABELS = ("inference", "training", "cpu", "network")


@dataclass(frozen=True, slots=True)
class Span:
    """A task at work."""

    stage: str
    label: str  # of the executor
    worker: str  # on which host, and who
    began: float  # seconds since 1970
    ended: float
    cpu_s: float
    session: str


@dataclass(frozen=True, slots=True)
class Session:
    """A driver that carried the run out, or a part of it."""

    id: str
    capacity: int  # cores, or devices
    unit: str  # "cores" or "devices"
    holds: Mapping[str, int]  # devices that a task of an executor holds; empty for cores


@dataclass(frozen=True, slots=True)
class Use:
    """What came of it."""

    wall_s: float  # from the first task to the last, of all sessions
    offered_s: float  # that times cores or devices
    busy_s: float
    unit: str

    @property
    def share(self) -> float:
        return self.busy_s / self.offered_s if self.offered_s else 0.0


def used(sessions: Sequence[Session], spans: Sequence[Span]) -> Use:
    """How much of what it had the run used; of cores or of devices, as the last session says."""
    wall = offered = busy = 0.0
    for session in sessions:
        mine = [span for span in spans if span.session == session.id]
        if mine:
            took = max(span.ended for span in mine) - min(span.began for span in mine)
            wall, offered = wall + took, offered + took * session.capacity
            busy += _held(session, mine) if session.holds else sum(span.cpu_s for span in mine)
    return Use(wall, offered, busy, sessions[-1].unit if sessions else "cores")


def _held(session: Session, spans: Sequence[Span]) -> float:
    """Device-seconds that tasks held; several that share a device count once."""
    changes: dict[float, int] = defaultdict(int)
    for span in spans:
        changes[span.began] += session.holds.get(span.label, 0)
        changes[span.ended] -= session.holds.get(span.label, 0)
    held, total = 0, 0.0
    for moment, later in pairwise(sorted(changes)):
        held += changes[moment]
        total += min(held, session.capacity) * (later - moment)
    return total


def drawn(sessions: Sequence[Session], spans: Sequence[Span]) -> str:
    """The figure as an inline SVG: a row a worker, or where these are many how many were at work."""
    placed = _from_start(sessions, spans)
    workers = {(span.label, span.worker) for span, *_ in placed}
    together = len(workers) > ROWS or len(spans) > SPANS
    axes = figures.wide(3.0 if together else 0.9 + 0.24 * len(workers))
    colours = _colours(placed)
    (_many if together else _rows)(axes, placed, colours)
    axes.set_xlabel("seconds since the first task")
    shown = [(stage, colour, "s") for stage, colour in colours.items() if colour != figures.BEFORE]
    figures.legend(axes, [*shown, *([("others", figures.BEFORE, "s")] if len(shown) < len(colours) else [])])
    return figures.svg(axes.figure, "timeline")


Placed = tuple[Span, float, float]  # a span, and where it lies in the figure


def _from_start(sessions: Sequence[Session], spans: Sequence[Span]) -> list[Placed]:
    """Every session after the one before."""
    found, start = [], 0.0
    for session in sessions:
        mine = [span for span in spans if span.session == session.id]
        first = min((span.began for span in mine), default=0.0)
        found += [(span, start + span.began - first, start + span.ended - first) for span in mine]
        start = max((end for *_, end in found), default=0.0)
    return found


def _rows(axes: Any, placed: Sequence[Placed], colours: Mapping[str, str]) -> None:
    order = {label: i for i, label in enumerate(LABELS)}
    workers = sorted({(s.label, s.worker) for s, *_ in placed}, key=lambda w: (order.get(w[0], len(order)), w[1]))
    numbers: dict[str, int] = defaultdict(int)
    names = []
    for y, (label, worker) in enumerate(workers):
        numbers[label] += 1
        names.append(f"{label} {numbers[label]}")
        for stage, colour in colours.items():
            mine = [(a, b - a) for s, a, b in placed if (s.label, s.worker) == (label, worker) and s.stage == stage]
            axes.broken_barh(mine, (y - 0.38, 0.76), facecolors=colour, edgecolor=figures.PAPER, linewidth=0.3)
    figures.categories(axes, names)


def _many(axes: Any, placed: Sequence[Placed], colours: Mapping[str, str]) -> None:
    """Tasks at work at the same time, by stage: the mean over each of some equal stretches of time."""
    import numpy as np

    end = max(b for *_, b in placed)
    edges = np.linspace(0, end, BINS + 1)
    begun = {stage: np.zeros(BINS) for stage in colours}
    for span, a, b in placed:
        begun[span.stage] += np.clip(np.minimum(b, edges[1:]) - np.maximum(a, edges[:-1]), 0, None)
    heights = [total / (edges[1] - edges[0]) for total in begun.values()]
    axes.stackplot((edges[1:] + edges[:-1]) / 2, heights, colors=list(colours.values()), linewidth=0)
    axes.set_ylabel("tasks at work")


def _colours(placed: Sequence[Placed]) -> dict[str, str]:
    """One for each of the stages that took longest, the same for all others; in the order in which stages begin."""
    took: dict[str, float] = defaultdict(float)
    for span, *_ in sorted(placed, key=lambda at: at[1]):
        took[span.stage] += span.ended - span.began
    longest = sorted(took, key=lambda stage: -took[stage])[: len(figures.AGENTS)]
    colours = iter(figures.AGENTS)
    return {stage: next(colours) if stage in longest else figures.BEFORE for stage in took}
