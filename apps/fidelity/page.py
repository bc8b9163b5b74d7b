"""The fidelity benchmark as one HTML page: no script, no address outside of itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from apps.fidelity import figures, summary

TEMPLATE = Path(__file__).with_name("fidelity.html.jinja")
SHOWN = {  # a column of the table of planted faults -> the figure
    "agent named": "agent_top1",
    "turn named": "turn_top1",
    "agent named, habits": "habit_agent_top1",
    "agent named, repaired": "repaired_agent_top1",
    "two faults: one named": "double_agent",
    "both lowest": "double_both",
    "false blame": "false_blame",
    "of a harmless turn": "false_blame_harmless",
    "Spearman": "spearman",
    "sign errors": "sign_errors",
}
DRAWN = ("plain, fresh", "antithetic, fresh", "plain, common", "antithetic, common")


def render(found: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """The page as text."""
    import jinja2
    import yaml
    from markupsafe import Markup

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {
        "share": share,
        "ends": ends,
        "number": number,
        "words": lambda name: name.replace("_", " "),
    }
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        s=found,
        shown=SHOWN,
        drawn={name: Markup(svg) for name, svg in drawings(found).items()},
        config=yaml.safe_dump(dict(options.get("config", {})), sort_keys=False, allow_unicode=True),
    )


def drawings(found: Mapping[str, Any]) -> dict[str, str]:
    """Every figure that there is something to draw for, by name."""
    drawn = {}
    if "games" in found:
        drawn["errors"] = figures.errors("errors", lines(found["games"]["rows"]), "error, median over noisy teams")
    if "faults" in found:
        methods = {name: (f["tokens"], f["agent_top1"]) for name, f in found["faults"]["methods"].items()}
        drawn["costs"] = figures.costs("costs", methods, "guilty agent named")
    if "team" in found:
        drawn["repeats"] = figures.repeats("repeats", by_repeats(found["team"]["methods"]), summary.SHAPLEY_TARGET)
        methods = {
            name: (f["tokens"], f["spearman_prefix"])
            for name, f in found["team"]["methods"].items()
            if name[-1].isalpha()
        }
        drawn["team-costs"] = figures.costs("team-costs", methods, "Spearman with worth by prefix")
    return drawn


def lines(rows: list[Mapping[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    """Estimator -> (evaluations, median error over the noisy teams), by budget."""
    found: dict[str, list[tuple[float, float]]] = {}
    for name in DRAWN:
        alike = [r for r in rows if r["noisy"] and r["coupling"] == 1 and f"{r['estimator']}, {r['draws']}" == name]
        for budget in sorted({r["budget"] for r in alike}):
            same = [r for r in alike if r["budget"] == budget]
            point = tuple(float(np.median([r[key] for r in same])) for key in ("evaluations", "rmse"))
            found.setdefault(name, []).append(point)
    return found


def by_repeats(methods: Mapping[str, Mapping[str, Any]]) -> dict[str, list[tuple[float, Any]]]:
    """Truth -> (repeats, figure) of Shapley."""
    known = sorted(
        (int(name.removeprefix("shapley_")), row)
        for name, row in methods.items()
        if name.removeprefix("shapley_").isdigit()
    )
    truths = {"Shapley values": "spearman_shapley", "worth by prefix": "spearman_prefix"}
    return {label: [(n, row[key]) for n, row in known] for label, key in truths.items()}


def share(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def ends(figure: Mapping[str, Any]) -> str:
    return "" if figure["low"] is None else f"{figure['low']:.2f} to {figure['high']:.2f}".replace("-", "−")


def number(value: float | None) -> str:
    """Three digits, never in exponents."""
    return "–" if value is None else f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}".replace("-", "−")
