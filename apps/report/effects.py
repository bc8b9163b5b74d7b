"""The stage `effects`: what each method moves against its own ablation, over seeds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from apps.records import MeritError


def effects(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """Writes `effects.json` and `effects.md`. Inputs `given/KIND/NAME` and `ablated/KIND/NAME`: an artifact a seed."""
    rows = [{**row, **moved(row, inputs)} for row in options["rows"]]
    (out / "effects.json").write_text(json.dumps({"seeds": options["seeds"], "rows": rows}, indent=1) + "\n")
    (out / "effects.md").write_text(markdown(rows, options["seeds"]), encoding="utf-8")
    return {"methods": len(rows), "as_wanted": sum(row["as_wanted"] for row in rows)}


def moved(row: Mapping[str, Any], inputs: Mapping[str, Sequence[Path]]) -> dict[str, Any]:
    """The figure of both arms by seed, and whether every seed moved as it was wanted to."""
    arms = {
        arm: [figure(row, folder) for folder in inputs[f"{arm}/{row['kind']}/{row['name']}"]]
        for arm in ("given", "ablated")
    }
    apart = [a - b for a, b in zip(arms["given"], arms["ablated"], strict=True)]
    sign = 1 if row["wanted"] == "higher" else -1
    return {**arms, "difference": apart, "as_wanted": all(sign * difference > 0 for difference in apart)}


def figure(row: Mapping[str, Any], folder: Path) -> float:
    found: Any = json.loads((folder / row["file"]).read_text(encoding="utf-8"))
    for step in row["path"]:
        try:
            found = found[step]
        except (KeyError, IndexError, TypeError) as error:
            raise MeritError(
                f"effects: {row['name']} looks for {row['path']} in {row['file']}, where there is no {step!r}"
            ) from error
    if not isinstance(found, (int, float)):
        raise MeritError(
            f"effects: {row['path']} in {row['file']} of {row['name']} is {found!r}, a number was expected"
        )
    return float(found)


def markdown(rows: Sequence[Mapping[str, Any]], seeds: Sequence[int]) -> str:
    """A table a kind: means over the seeds, and each seed's difference."""
    lines: list[str] = []
    for kind in dict.fromkeys(row["kind"] for row in rows):
        lines += [
            f"**{kind}**",
            "",
            "| method | against | figure | with | without | difference, by seed |",
            "|---|---|---|---:|---:|---:|",
        ]
        lines += [line(row) for row in rows if row["kind"] == kind]
        lines.append("")
    return "\n".join(lines) + f"Means over seeds {', '.join(map(str, seeds))}. * = some seed did not move as wanted.\n"


def line(row: Mapping[str, Any]) -> str:
    apart = ", ".join(f"{difference:+.3f}" for difference in row["difference"])
    figure = f"{row['figure']} ({row['wanted']})"
    means = f"{np.mean(row['given']):.3f} | {np.mean(row['ablated']):.3f}"
    return f"| `{row['name']}` | {row['against']} | {figure} | {means} | {apart}{'' if row['as_wanted'] else ' *'} |"
