"""The stage `fidelity`: puts what was found into `summary.json`, a table for the terminal, and one page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from apps.fidelity import page, rows, summary


def fidelity(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """Writes `summary.json` and `report.html` from the parts that were run: `contest`, `planted` and `compared`."""
    found: dict[str, Any] = {"name": options["name"]}
    if "contest" in inputs:
        found["games"] = json.loads((inputs["contest"][0] / "contest.json").read_text())
    if "planted" in inputs:
        played = [row for folder in inputs["planted"] for row in rows.read(folder)]
        found["faults"] = summary.planted(played, list(options["methods"]))
    if "faulty_base" in inputs:
        played = [row for folder in inputs["faulty_base"] for row in rows.read(folder)]
        found["faults"]["faulty_base"] = summary.planted(played, list(options["ablated"]))
    if "compared" in inputs:
        found["team"] = json.loads((inputs["compared"][0] / "compared.json").read_text())
        found["team"]["shapley"] = summary.reached(found["team"]["methods"])
    found["table"] = summary.table(found)
    (out / "summary.json").write_text(json.dumps(found, indent=1) + "\n")
    (out / "report.html").write_text(page.render(found, options), encoding="utf-8")
    return {"parts": [name for name in ("games", "faults", "team") if name in found]}
