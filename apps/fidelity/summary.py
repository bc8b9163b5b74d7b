"""What was found, under flat and obvious names, for programs and for the terminal. Pure functions.

summary["faults"]["methods"]["first_error"]["agent_top1"] == {"value": …, "low": …, "high": …, "n": …}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from apps.fidelity import measures
from apps.fidelity.measures import Played

TARGETS = {  # figure -> (method -> what is to be reached)
    "agent_top1": {"reward_and_blame": 0.95, "first_error": 0.95},
    "turn_top1": {"reward_and_blame": 0.9, "first_error": 0.9},
    "false_blame": {"reward_and_blame": 0.05, "first_error": 0.05},
}
SHAPLEY_TARGET = 0.9
COLUMNS = ("agent_top1", "turn_top1", "habit_agent_top1", "double_both", "false_blame", "spearman", "sign_errors")


def planted(rows: Sequence[Played], methods: Sequence[str]) -> dict[str, Any]:
    """The figures of each method over all cases and in each, and how many traces there were of each kind."""
    cases = list(dict.fromkeys(row.case for row in rows))
    of = {case: [row for row in rows if row.case == case] for case in cases}
    found = {
        "methods": {name: measures.figures(rows, name) for name in methods},
        "cases": {case: {"counts": counts(of[case]), "methods": shares(of[case], methods)} for case in cases},
        "counts": counts(rows),
    }
    found["targets"] = targets(found["methods"])
    return found


def counts(rows: Sequence[Played]) -> dict[str, int]:
    """Traces by what happened in them."""
    single = [row for row in rows if len(row.guilty) == 1]
    return {
        "traces": len(rows),
        "failed": sum(row.failed for row in rows),
        "no_fault_struck": sum(not row.struck for row in rows),
        "single": len(single),
        "single_that_made_the_team_fail": sum(row.ruined for row in single),
        "single_repaired": sum(not row.failed for row in single),
        "single_that_would_have_failed_anyway": sum(row.failed and not row.ruined for row in single),
        "double": sum(len(row.guilty) > 1 for row in rows),
        "double_that_made_the_team_fail": sum(len(row.guilty) > 1 and row.ruined for row in rows),
    }


def shares(rows: Sequence[Played], methods: Sequence[str]) -> dict[str, dict[str, Any]]:
    """In one case: the figures that have an observation there."""
    found = {}
    for name in methods:
        figures = measures.figures(rows, name)
        found[name] = {k: v for k, v in figures.items() if not isinstance(v, dict) or v["value"] is not None}
    return found


def targets(methods: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Whether what is promised was reached, by the figure's value."""
    found = []
    for figure, by_method in TARGETS.items():
        for method, target in by_method.items():
            if method in methods and (value := methods[method][figure]["value"]) is not None:
                reached = value < target if figure == "false_blame" else value >= target
                found.append({"figure": figure, "method": method, "target": target, "value": value, "reached": reached})
    return found


def reached(methods: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Of the model's team: the fewest replays of each coalition with which Shapley values reach their target."""
    tried = {
        int(name.removeprefix("shapley_")): f for name, f in methods.items() if name.removeprefix("shapley_").isdigit()
    }
    good = [n for n, figure in sorted(tried.items()) if (figure["spearman_shapley"]["value"] or 0) >= SHAPLEY_TARGET]
    best = max(tried, default=None)
    return {
        "target": SHAPLEY_TARGET,
        "repeats": min(good, default=None),
        "most_repeats": best,
        "value": tried[best]["spearman_shapley"]["value"] if best else None,
        "reached": bool(good),
    }


def table(found: Mapping[str, Any]) -> str:
    """All parts as plain text."""
    parts = []
    if "games" in found:
        halving = found["games"]["halving"]
        parts.append(
            "games with known values\n"
            f"  antithetic orders with common random numbers need {halving['median']:.2f} of plain sampling's evaluations "
            f"for its error, in the median of {len(halving['games'])} noisy teams (target: {halving['target']:g})"
        )
    if "faults" in found:
        rows = [("planted faults", *(name.replace("_", " ") for name in COLUMNS), "replays", "tokens")]
        for name, figures in found["faults"]["methods"].items():
            costs = [f"{figures[what]:.1f}" for what in ("replays", "tokens")]
            rows.append((name, *(short(figures[column]) for column in COLUMNS), *costs))
        parts.append(aligned(rows))
        parts += [told(target) for target in found["faults"]["targets"]]
        for name, figures in found["faults"].get("faulty_base", {"methods": {}})["methods"].items():
            parts.append(f"  with the fault in the stand-in too: {name}, agent_top1 {short(figures['agent_top1'])}")
    if "team" in found:
        names = [key for key in next(iter(found["team"]["methods"].values())) if key.startswith("spearman")]
        rows = [("the model's team", *(name.replace("_", " ") for name in names), "replays", "tokens", "seconds")]
        for name, row in found["team"]["methods"].items():
            costs = [f"{row[what]:.3g}" for what in ("replays", "tokens", "seconds")]
            rows.append((name, *(short(row[key]) for key in names), *costs))
        parts.append(aligned(rows))
        shapley = found["team"]["shapley"]
        at = f"from {shapley['repeats']} repeats on" if shapley["reached"] else "NOT reached"
        parts.append(
            f"  shapley against itself replayed, spearman >= {shapley['target']:g}: {at} "
            f"({shapley['value']:.3f} with {shapley['most_repeats']})"
        )
    return "\n".join(parts)


def told(target: Mapping[str, Any]) -> str:
    sign = "<" if target["figure"] == "false_blame" else ">="
    state = "reached" if target["reached"] else "NOT reached"
    return f"  {target['method']}, {target['figure']} {sign} {target['target']:g}: {target['value']:.3f}, {state}"


def short(figure: Mapping[str, Any]) -> str:
    if figure["value"] is None:
        return "-"
    ends = "" if figure["low"] is None else f" [{figure['low']:.2f}, {figure['high']:.2f}]"
    return f"{figure['value']:.3f}{ends}"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])
