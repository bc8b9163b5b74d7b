"""The figures of the fidelity page, drawn as those of the report are (apps/report/figures.py): inline SVG, no pyplot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from apps.report.figures import AGENTS, INK, MARKERS, RULE, WIDTH, svg

Figure = Mapping[str, Any]  # value, low, high


def costs(name: str, methods: Mapping[str, tuple[float, Figure]], ylabel: str) -> str:
    """Fidelity against cost: method -> (tokens a trace, figure). The cheapest, which cost nothing, stand at the left."""
    figure, axes = _axes(4.2)
    shown = {method: (cost, f) for method, (cost, f) in methods.items() if f["value"] is not None}
    for k, (cost, value) in enumerate(shown.values()):
        axes.plot([cost, cost], [value["low"], value["high"]], color=_colour(k), linewidth=1, alpha=0.5)
        axes.plot(cost, value["value"], _marker(k), color=_colour(k), markersize=6)
    axes.set_xscale("symlog", linthresh=10)
    axes.set_xlim(-3, max([cost for cost, _ in shown.values()] + [10]) * 2)
    axes.set_xlabel("tokens sampled for replays, a trace")
    axes.set_ylabel(ylabel)
    _legend(axes, [method.replace("_", " ") for method in shown], line="")
    return svg(figure, name)


def errors(name: str, lines: Mapping[str, Sequence[tuple[float, float]]], ylabel: str) -> str:
    """Error against evaluations on double-logarithmic axes, a line an estimator, and the slope of Monte Carlo."""
    figure, axes = _axes(3.2)
    for k, (_, points) in enumerate(lines.items()):
        axes.plot(
            *zip(*points, strict=True),
            color=_colour(k),
            marker=_marker(k),
            markersize=4.5,
            linewidth=1.4,
        )
    if first := next(iter(lines.values()), None):
        (x0, y0), x1 = first[0], first[-1][0]
        axes.plot([x0, x1], [1.25 * y0, 1.25 * y0 * (x0 / x1) ** 0.5], color=INK, linewidth=0.8, linestyle=":")
        axes.annotate("1/√evaluations", (x1, 1.25 * y0 * (x0 / x1) ** 0.5), (-2, 4), textcoords="offset points", ha="right",
                      color=INK, fontsize=8)  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    _plain_ticks(axes, sorted({x for points in lines.values() for x, _ in points}), lines)
    axes.set_xlabel("evaluations")
    axes.set_ylabel(ylabel)
    _legend(axes, list(lines))
    return svg(figure, name)


def repeats(name: str, lines: Mapping[str, Sequence[tuple[float, Figure]]], target: float) -> str:
    """Rank correlation with each truth by repeats of a coalition, with intervals; a rule where the target lies."""
    figure, axes = _axes(2.8)
    axes.axhline(target, color=INK, linewidth=0.8, linestyle=":")
    for k, points in enumerate(lines.values()):
        known = [(x, f) for x, f in points if f["value"] is not None]
        axes.plot(
            [x for x, _ in known], [f["value"] for _, f in known], color=_colour(k), marker=_marker(k), linewidth=1.4
        )
        for x, f in known:
            axes.plot([x, x], [f["low"], f["high"]], color=_colour(k), linewidth=1)
    axes.set_xscale("log", base=2)
    ticks = sorted({x for points in lines.values() for x, _ in points})
    axes.set_xticks(ticks, [f"{x:g}" for x in ticks])
    axes.set_xlabel("replays of each coalition")
    axes.set_ylabel("Spearman with the truth")
    _legend(axes, list(lines))
    return svg(figure, name)


def _axes(height: float):
    from matplotlib.figure import Figure as Canvas

    figure = Canvas(figsize=(WIDTH, height), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    axes.tick_params(which="both", colors=INK, length=0, labelsize=9)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=INK, fontsize=9)
    return figure, axes


def _plain_ticks(axes, xs: Sequence[float], lines: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    """Numbers in place of powers of ten."""
    from matplotlib.ticker import MaxNLocator, NullFormatter

    axes.set_xticks(xs, [f"{x:.0f}" for x in xs])
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter("{x:.2g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_minor_formatter(NullFormatter())


def _legend(axes, labels: Sequence[str], line: str = "-") -> None:
    from matplotlib.lines import Line2D

    marks = [
        Line2D([], [], color=_colour(k), marker=_marker(k), markersize=5, linestyle=line, label=label)
        for k, label in enumerate(labels)
    ]
    axes.legend(
        handles=marks, loc="lower left", bbox_to_anchor=(0, 1), ncols=2 if line else 3, frameon=False, fontsize=8,
        labelcolor=INK, borderaxespad=0.1, columnspacing=1.2, handletextpad=0.4,
    )  # fmt: skip


def _colour(k: int) -> str:
    return AGENTS[k % len(AGENTS)]


def _marker(k: int) -> str:
    """Another one at every step, and another pairing with the colours at every turn of those."""
    return MARKERS[(k + k // len(AGENTS)) % len(MARKERS)]
