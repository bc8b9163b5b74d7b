"""The closing table of a run, for the terminal: before and after, with intervals."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

Row = tuple[str, str, str, str]


def table(summary: Path) -> str:
    """Plain text of what `summary.json` holds of accuracy, roles and credit; else the table that it brings, or its state."""
    found = json.loads(summary.read_text())
    if "accuracy" not in found:
        return found.get("table") or f"state: {found['state']}"
    rows: list[Row] = [("held-out tasks", "before", "after", "difference")]
    rows += [_compared(f"team, {mode}", found["accuracy"][mode]) for mode in ("greedy", "sampled")]
    rows += [_figure(f"solver alone, {mode}", found["solver_alone"][mode]) for mode in ("greedy", "sampled")]
    over = found["team_over_solver"]["sampled"]
    rows.append(
        ("trained team over its solver", "", "", f"{over['difference']:+.3f} [{over['low']:+.3f}, {over['high']:+.3f}]")
    )
    rows += [_figure(f"{role}: {name}", both) for role, named in found["roles"].items() for name, both in named.items()]
    rows += [_stage(row) for row in found.get("stages", ())]
    rows += [_credit(role, given) for role, given in found["credit"].items()]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:], *_alarms(found)])


def _compared(name: str, row: Mapping[str, Any]) -> Row:
    difference = f"{row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]  p = {row['p']:.2g}, n = {row['n']}"
    return name, _interval(row["before"]), _interval(row["after"]), difference


def _figure(name: str, both: Mapping[str, Any]) -> Row:
    before, after = both["before"], both["after"]
    values = before["value"], after["value"]
    return (
        name.replace("_", " "),
        _interval(before),
        _interval(after),
        "" if None in values else f"{values[1] - values[0]:+.3f}",
    )


def _stage(row: Mapping[str, Any]) -> Row:
    change = row["change"]
    told = f"{change['difference']:+.3f} [{change['low']:+.3f}, {change['high']:+.3f}]"
    return f"validation after {row['stage']}", "", _interval(row), told


def _credit(role: str, given: Mapping[str, Any]) -> Row:
    before, after = ({**given[when], "value": given[when]["mean"]} for when in ("before", "after"))
    return f"credit of the {role}", _interval(before), _interval(after), ""


def _interval(row: Mapping[str, Any]) -> str:
    return "-" if row["value"] is None else f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def _alarms(found: Mapping[str, Any]) -> Iterator[str]:
    for alarm in found.get("alarms", ()):
        yield f"health: {alarm}"
