"""The stage `claims`: what credit is worth, from the summaries of the same run over seeds and arms."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

FIGURES = {  # a column of the table -> where it lies in summary.json
    "team greedy before": ("accuracy", "greedy", "before", "value"),
    "team greedy after": ("accuracy", "greedy", "after", "value"),
    "team sampled before": ("accuracy", "sampled", "before", "value"),
    "team sampled after": ("accuracy", "sampled", "after", "value"),
    "solver alone sampled after": ("solver_alone", "sampled", "after", "value"),
    "team over solver": ("team_over_solver", "sampled", "difference"),
    "critic balanced accuracy before": ("roles", "critic", "balanced_accuracy", "before", "value"),
    "critic balanced accuracy after": ("roles", "critic", "balanced_accuracy", "after", "value"),
    "reviser wrong to right after": ("roles", "reviser", "wrong_to_right", "after", "value"),
    "reviser right to wrong after": ("roles", "reviser", "right_to_wrong", "after", "value"),
    "verifier misread after": ("roles", "verifier", "misread", "after", "value"),
    "tokens sampled": ("tokens", "sampled"),
    "tokens trained on": ("tokens", "trained"),
}
COLUMNS = (
    "team greedy after",
    "team sampled after",
    "solver alone sampled after",
    "team over solver",
    "critic balanced accuracy after",
    "reviser wrong to right after",
    "verifier misread after",
    "tokens sampled",
)


def claims(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """Writes `claims.json` (every run's figures, and mean and range of each arm) and `claims.md`. Inputs: reports by arm."""
    runs = {arm: [read(folder) for folder in folders] for arm, folders in inputs.items()}
    arms = {arm: {name: spread([run[name] for run in rows]) for name in rows[0]} for arm, rows in runs.items()}
    found = {"seeds": list(options["seeds"]), "arms": arms, "runs": runs}
    (out / "claims.json").write_text(json.dumps(found, indent=1) + "\n")
    (out / "claims.md").write_text(markdown(found), encoding="utf-8")
    return {"arms": list(arms), "runs": sum(map(len, runs.values()))}


def read(folder: Path) -> dict[str, float | None]:
    """The figures of one run."""
    summary = json.loads((folder / "summary.json").read_text())
    figures = {name: at(summary, path) for name, path in FIGURES.items()}
    return {**figures, "sampled p": summary["accuracy"]["sampled"]["p"], "greedy p": summary["accuracy"]["greedy"]["p"]}


def at(summary: Any, path: Sequence[str]) -> float | None:
    """A figure by its path; None where the run has none (a team without a critic)."""
    for part in path:
        if not isinstance(summary, Mapping) or part not in summary:
            return None
        summary = summary[part]
    return summary


def spread(values: Sequence[float | None]) -> dict[str, float | None]:
    """Mean, least and largest over the seeds."""
    known = [value for value in values if value is not None]
    if not known:
        return {"mean": None, "low": None, "high": None}
    return {"mean": float(np.mean(known)), "low": min(known), "high": max(known)}


def markdown(found: Mapping[str, Any]) -> str:
    """The arms side by side: mean over the seeds, and the range in brackets."""
    lines = ["| credit | " + " | ".join(COLUMNS) + " |", "|---|" + "---:|" * len(COLUMNS)]
    for arm, figures in found["arms"].items():
        lines.append(f"| {arm} | " + " | ".join(cell(figures[name]) for name in COLUMNS) + " |")
    return "\n".join(lines) + f"\n\nMean over seeds {', '.join(map(str, found['seeds']))}; in brackets the range.\n"


def cell(given: Mapping[str, float | None]) -> str:
    if given["mean"] is None:
        return "-"
    form = ",.0f" if given["high"] > 1000 else ".3f"  # counts, shares
    return f"{given['mean']:{form}} [{given['low']:{form}}, {given['high']:{form}}]"
