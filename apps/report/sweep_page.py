"""A study as one HTML page, and as a table for the terminal: no script, no address outside of itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from apps.report import figures

TEMPLATE = Path(__file__).with_name("sweep.html.jinja")
DRAWN = 4  # figures that are drawn; all are in the table


def render(found: Mapping[str, Any]) -> str:
    """The page as text."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"number": number, "ends": ends}
    drawn = {name: Markup(chart(f"sweep-{i}", name, found)) for i, name in enumerate(found["figures"][:DRAWN])}
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(s=found, drawn=drawn)


def chart(name: str, figure: str, found: Mapping[str, Any]) -> str:
    """A row a configuration: its runs, their mean and its interval; the best one in colour."""
    rows = []
    for one in found["configurations"]:
        runs = [run["figures"].get(figure) for run in found["runs"] if run["configuration"] == one["configuration"]]
        values = [value for value in runs if value is not None]
        rows.append((one["configuration"], values, one["figures"][figure], one["configuration"] == found["best"]))
    return figures.over_seeds(name, [row for row in rows if row[1]], figure)


def text(found: Mapping[str, Any]) -> str:
    """The table for the terminal, the failures below it."""
    head = ["configuration", "runs", *found["figures"]]
    rows = [head, *(_line(found, one) for one in found["configurations"])]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "-" * max(map(len, lines)))
    lines += ["", f"Mean over seeds [{found['interval']}]; * = best by {found['chosen_by']}."]
    lines += [f"No run has the figure {name!r}." for name in found["missing"]]
    failed = [run for run in found["runs"] if run["state"] == "failed"]
    if failed:
        lines += ["", f"{len(failed)} of {len(found['runs'])} runs failed:"]
        lines += [f"  {run['name']}: {run['reason']}" for run in failed]
    return "\n".join(lines)


def _line(found: Mapping[str, Any], one: Mapping[str, Any]) -> list[str]:
    mark = " *" if one["configuration"] == found["best"] else ""
    given = [one["figures"][name] for name in found["figures"]]
    shown = [f"{number(f['mean'])} {ends(f)}".strip() for f in given]
    return [one["configuration"] + mark, states(one), *shown]


def states(one: Mapping[str, Any]) -> str:
    """ "3", or "2, 1 failed"."""
    parts = [str(one["finished"])] if one["finished"] else []
    parts += [f"{one[key]} {key.replace('_', ' ')}" for key in ("failed", "left_out") if one[key]]
    return ", ".join(parts)


def number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3f}"


def ends(given: Mapping[str, Any]) -> str:
    return "" if given["low"] is None else f"[{number(given['low'])}, {number(given['high'])}]"
