"""The figures of the report as inline SVG, drawn by matplotlib's object interface (no pyplot: that is not thread-safe).

Colours are those of Okabe and Ito (2008), which the colour-blind can tell apart. They are drawn as placeholders and
replaced by CSS variables, so that a figure follows the page into dark mode. Text stays text.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

# what matplotlib draws -> what the page shows; the page defines the variables
INK, RULE, PAPER = "#010203", "#040506", "#070809"
BEFORE, AFTER = "#0a0b0c", "#0d0e0f"
AGENTS = ("#101112", "#131415", "#161718", "#191a1b", "#1c1d1e", "#1f2021")
COLOURS = {INK: "ink", RULE: "rule", PAPER: "paper", BEFORE: "before", AFTER: "after"}
COLOURS |= {colour: f"agent{i}" for i, colour in enumerate(AGENTS)}
MARKERS = "os^Dvp"
WIDTH, ROW = 5.2, 0.34  # inches; a row of a chart with one line a thing

Value = Mapping[str, Any]  # value (or mean), low, high


def dumbbell(name: str, rows: Sequence[tuple[str, Value, Value]], xlabel: str) -> str:
    """A line a row: (label, before, after), each a mark with its interval."""
    figure, axes = _axes(max(1.3, 0.75 + 0.42 * len(rows)))
    for y, (_, before, after) in enumerate(rows):
        for shift, colour, marker, shown in ((-0.13, BEFORE, "o", before), (0.13, AFTER, "D", after)):
            _interval(axes, y + shift, shown, colour, marker)
    categories(axes, [label for label, *_ in rows])
    axes.set_xlabel(xlabel)
    legend(axes, [("before", BEFORE, "o"), ("after", AFTER, "D")])
    return svg(figure, name)


def bars(name: str, rows: Sequence[tuple[str, Value, Value]], xlabel: str) -> str:
    """Bars around 0 with intervals: (label, before, after)."""
    figure, axes = _axes(max(1.4, 0.75 + 0.5 * len(rows)))
    for y, (_, before, after) in enumerate(rows):
        for shift, colour, shown in ((-0.18, BEFORE, before), (0.18, AFTER, after)):
            if (value := middle(shown)) is not None:
                axes.barh(y + shift, value, 0.32, color=colour, linewidth=0)
                _whisker(axes, y + shift, shown)
    axes.axvline(0, color=INK, linewidth=0.8)
    categories(axes, [label for label, *_ in rows])
    axes.set_xlabel(xlabel)
    legend(axes, [("before", BEFORE, "s"), ("after", AFTER, "s")])
    return svg(figure, name)


def validation(name: str, points: Sequence[Value], promoted: Sequence[bool]) -> str:
    """Accuracy of the untrained team and of each round's candidate; a refused one is an open cross on no line."""
    figure, axes = _axes(2.6)
    kept = [True, *promoted]
    line = [(i, middle(p)) for i, (p, k) in enumerate(zip(points, kept, strict=False)) if k]
    axes.plot(*zip(*line, strict=True), color=AFTER, linewidth=1.4)
    for i, (point, k) in enumerate(zip(points, kept, strict=False)):
        low, high = _ends(point)
        axes.plot([i, i], [low, high], color=AFTER if k else BEFORE, linewidth=1)
        axes.plot(i, middle(point), "D" if k else "X", color=AFTER if k else BEFORE, markersize=6)
    _rounds(axes, range(len(points)))
    axes.set_ylabel("validation accuracy")
    legend(axes, [("in the team", AFTER, "D")] + ([("refused", BEFORE, "X")] if not all(promoted) else []))
    return svg(figure, name)


def over_seeds(name: str, rows: Sequence[tuple[str, Sequence[float], Value, bool]], xlabel: str) -> str:
    """A line a row: (label, what each run came to, their mean, whether it stands out)."""
    figure, axes = _axes(max(1.1, 0.6 + 0.36 * len(rows)))
    for y, (_, values, mean, marked) in enumerate(rows):
        colour = AFTER if marked else BEFORE
        axes.plot(values, [y] * len(values), "o", markerfacecolor="none", markeredgecolor=colour, markersize=4.5)
        _interval(axes, y, mean, colour, "D")
    categories(axes, [label for label, *_ in rows])
    axes.set_xlabel(xlabel)
    return svg(figure, name)


def over_rounds(name: str, lines: Mapping[str, Sequence[Value]], ylabel: str, zero: bool = False) -> str:
    """A line a role over the training rounds, with intervals where there are any."""
    figure, axes = _axes(2.6)
    if zero:
        axes.axhline(0, color=INK, linewidth=0.8)
    for k, (_, points) in enumerate(lines.items()):
        shown = [(i + 1 + 0.04 * (k - len(lines) / 2), p) for i, p in enumerate(points) if middle(p) is not None]
        axes.plot([x for x, _ in shown], [middle(p) for _, p in shown], **_agent(k), linewidth=1.4, markersize=4.5)
        for x, point in shown:
            axes.plot([x, x], _ends(point), color=AGENTS[k % len(AGENTS)], linewidth=1)
    _rounds(axes, range(1, max(map(len, lines.values()), default=0) + 1))
    axes.set_ylabel(ylabel)
    if len(lines) > 1:
        legend(axes, [(role, AGENTS[k % len(AGENTS)], MARKERS[k % len(MARKERS)]) for k, role in enumerate(lines)])
    return svg(figure, name)


def losses(name: str, lines: Mapping[str, Sequence[Sequence[float]]]) -> str:
    """One small chart an agent: loss by optimiser step, given a list a round; a rule where a round begins."""
    figure = _figure(0.5 + 0.95 * len(lines))
    for k, (agent, parts) in enumerate(lines.items()):
        axes = figure.add_subplot(len(lines), 1, k + 1)
        _dress(axes, grid="y")
        for start in list(accumulate(map(len, parts)))[:-1]:
            axes.axvline(start, color=RULE, linewidth=1)
        axes.plot([loss for part in parts for loss in part], color=AGENTS[k % len(AGENTS)], linewidth=1)
        axes.set_ylabel(agent, rotation=0, ha="right", va="center")
        axes.locator_params(axis="y", nbins=3)
        axes.tick_params(labelbottom=k == len(lines) - 1)
    axes.set_xlabel("loss by optimiser step of all rounds; rules: a round begins")
    return svg(figure, name)


def seconds(name: str, by_stage: Mapping[str, float]) -> str:
    """Work by stage, the longest on top."""
    rows = sorted(by_stage.items(), key=lambda row: -row[1])
    figure, axes = _axes(max(1.2, 0.6 + 0.28 * len(rows)))
    for y, (_, value) in enumerate(rows):
        axes.barh(y, value, 0.6, color=AFTER, linewidth=0)
        axes.annotate(
            f"{value:,.1f}", (value, y), (4, 0), textcoords="offset points", va="center", color=INK, fontsize=9
        )
    categories(axes, [stage for stage, _ in rows])
    axes.margins(x=0.15)
    axes.set_xlabel("seconds of work, tasks at the same time counted each")
    return svg(figure, name)


def middle(shown: Value) -> float | None:
    return shown.get("value", shown.get("mean"))


def svg(figure, name: str) -> str:
    """The figure as an `<svg>` element that can stand in a page: ids of its own, colours by CSS, no namespace URLs."""
    import matplotlib

    # Always the same values, so a thread that draws at the same time sees no change.
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "merit"})
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", bbox_inches="tight", pad_inches=0.04, transparent=True, metadata={"Date": None})
    text = drawn.getvalue()[drawn.getvalue().index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\1{name}-", text)
    text = re.sub(r"(font(?:-family)?:[^;\"]*?)(?:'[^']*'(?:, )?)+[^;\"]*", r"\1sans-serif", text)
    for colour, variable in COLOURS.items():
        text = text.replace(colour, f"var(--{variable})")
    return text.replace("<svg ", f'<svg role="img" aria-label="{name.replace("-", " ")}" ', 1)


def wide(height: float) -> Any:
    """The axes of a figure as wide as the page."""
    return _axes(height, 2 * WIDTH)[1]


def _figure(height: float, width: float = WIDTH):
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _axes(height: float, width: float = WIDTH):
    figure = _figure(height, width)
    axes = figure.add_subplot()
    _dress(axes)
    return figure, axes


def _dress(axes, grid: str = "both") -> None:
    """Rules in place of a box."""
    axes.grid(axis=grid, color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    axes.tick_params(colors=INK, length=0, labelsize=9)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=INK, fontsize=9)


def categories(axes, labels: Sequence[str]) -> None:
    """A row a label, from the top."""
    axes.grid(visible=False, axis="y")
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)


def _rounds(axes, numbers: Sequence[int]) -> None:
    axes.grid(visible=False, axis="x")
    axes.set_xticks(list(numbers))
    axes.set_xlabel("round")
    axes.set_xlim(min(numbers, default=0) - 0.3, max(numbers, default=1) + 0.3)


def legend(axes, entries: Sequence[tuple[str, str, str]]) -> None:
    """(label, colour, marker) above the axes."""
    from matplotlib.lines import Line2D

    marks = [Line2D([], [], color=c, marker=m, linestyle="", markersize=5, label=label) for label, c, m in entries]
    axes.legend(
        handles=marks, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(marks), frameon=False, fontsize=9, labelcolor=INK,
        borderaxespad=0.1, handletextpad=0.2, columnspacing=1.2,
    )  # fmt: skip


def _agent(k: int) -> dict[str, str]:
    return {"color": AGENTS[k % len(AGENTS)], "marker": MARKERS[k % len(MARKERS)]}


def _ends(shown: Value) -> tuple[float, float]:
    """The interval; the value itself where there is none."""
    low, high = shown.get("low"), shown.get("high")
    return (middle(shown), middle(shown)) if low is None or high is None else (low, high)


def _interval(axes, y: float, shown: Value, colour: str, marker: str) -> None:
    if middle(shown) is not None:
        axes.plot(_ends(shown), [y, y], color=colour, linewidth=1.6, solid_capstyle="butt")
        axes.plot(middle(shown), y, marker, color=colour, markersize=5.5)


def _whisker(axes, y: float, shown: Value) -> None:
    axes.plot(_ends(shown), [y, y], color=INK, linewidth=1)
