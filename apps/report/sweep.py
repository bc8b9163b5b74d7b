"""The stage `sweep`: the table of a study, a row a configuration, with intervals over its seeds; and a row a run.

Which configuration is the best is said by validation tasks alone: the test tasks would tell too good a figure of what they chose.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from apps.evaluation import seeds
from apps.report import claims, sweep_page

VALIDATION = "validation"
FIGURES = {  # of post_train; a column -> its place in summary.json
    name: claims.FIGURES[name]
    for name in (
        "team greedy after",
        "team sampled after",
        "solver alone sampled after",
        "team over solver",
        "critic balanced accuracy after",
        "tokens sampled",
        "tokens trained on",
    )
}
SUMMARY, SCORES = "summary.json", "scores.json"


def sweep(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """Writes `sweep.json`, `sweep.html`, `sweep.csv` (a row a configuration), `runs.csv` and, with pyarrow, both as Parquet.

    Inputs: `RUN/NAME`, what a run that did not fail came to: a folder with a `summary.json` or a `scores.json` counts.
    Options: `runs` (name, configuration, seed, settings, state, reason), `name`, `workflow`, `figures` (column: place in
    summary.json; none: those of post_train).
    """
    found = study(inputs, options)
    (out / "sweep.json").write_text(json.dumps(found, indent=1) + "\n")
    tables = {"sweep": rows(found), "runs": found["runs"]}
    for name, table in tables.items():
        flat = [flattened(row) for row in table]
        (out / f"{name}.csv").write_text(as_csv(flat), encoding="utf-8")
        found.setdefault("parquet", True)
        found["parquet"] &= write_parquet(out / f"{name}.parquet", flat)
    (out / "sweep.html").write_text(sweep_page.render(found), encoding="utf-8")
    return {"best": found["best"], "runs": len(found["runs"]), "parquet": found["parquet"]}


def study(inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """All that the tables say, as plain JSON."""
    places = {name: tuple(place.split(".")) for name, place in options["figures"].items()}
    places = places or (FIGURES if options["workflow"] == "post_train" else {})
    runs = [{**run, "figures": figures(run["name"], inputs, places)} for run in options["runs"]]
    names = [VALIDATION, *places] if any(VALIDATION in run["figures"] for run in runs) else list(places)
    names = [name for name in names if any(run["figures"].get(name) is not None for run in runs)]
    settings = list(dict.fromkeys(key for run in runs for key in run["settings"]))
    configurations = [configuration(runs, label, names) for label in dict.fromkeys(r["configuration"] for r in runs)]
    return {
        "name": options["name"],
        "workflow": options["workflow"],
        "settings": settings,
        "figures": names,
        "interval": "95 % Student's t over seeds",
        "missing": [name for name in places if name not in names],
        "configurations": configurations,
        "best": best(configurations),
        "chosen_by": "mean accuracy on validation tasks, over seeds",
        "runs": runs,
    }


def figures(run: str, inputs: Mapping[str, Sequence[Path]], places: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """What a run came to; a figure that it has not is None."""
    folders = [folder for name, given in inputs.items() if name.rpartition("/")[0] == run for folder in given]
    summary = next((json.loads((f / SUMMARY).read_text()) for f in folders if (f / SUMMARY).is_file()), {})
    found = {name: number(claims.at(summary, place)) for name, place in places.items()}
    scores = [folder for folder in inputs.get(f"{run}/scores", ()) if (folder / SCORES).is_file()]
    if scores:
        found[VALIDATION] = number(json.loads((scores[0] / SCORES).read_text())["accuracy"]["value"])
    return found


def number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


def configuration(runs: Sequence[Mapping[str, Any]], label: str, names: Sequence[str]) -> dict[str, Any]:
    """A configuration over its seeds; runs that failed or were left out are counted, and their figures are not."""
    mine = [run for run in runs if run["configuration"] == label]
    states = [run["state"] for run in mine]
    counted = [run for run in mine if run["state"] == "finished"] or [r for r in mine if r["state"] == "left out"]
    return {
        "configuration": label,
        "settings": mine[0]["settings"],
        "seeds": [run["seed"] for run in mine],
        "finished": states.count("finished"),
        "failed": states.count("failed"),
        "left_out": states.count("left out"),
        "figures": {
            name: dataclasses.asdict(seeds.spread([run["figures"].get(name) for run in counted])) for name in names
        },
    }


def best(configurations: Sequence[Mapping[str, Any]]) -> str:
    """The highest mean on validation tasks among those of which every run was finished; of equals the first; "" for none."""
    whole = [c for c in configurations if c["finished"] == len(c["seeds"]) and VALIDATION in c["figures"]]
    ranked = sorted(whole, key=lambda c: -(c["figures"][VALIDATION]["mean"] or 0.0))  # stable
    return ranked[0]["configuration"] if ranked else ""


def rows(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The table of configurations, flat: a figure's mean, low and high in a column each."""
    table = []
    for one in found["configurations"]:
        row = {key: one[key] for key in ("configuration", "settings", "finished", "failed", "left_out")}
        row["seeds"] = " ".join(map(str, one["seeds"]))
        for name, given in one["figures"].items():
            row |= {name: given["mean"], f"{name} low": given["low"], f"{name} high": given["high"]}
        table.append({**row, "best": one["configuration"] == found["best"]})
    return table


def flattened(row: Mapping[str, Any]) -> dict[str, Any]:
    """Settings and figures as columns of their own; what is no number or word stands as JSON."""
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if key == "changes":
            continue
        inner = value if key in ("settings", "figures") else {key: value}
        flat |= {k: json.dumps(v) if isinstance(v, (dict, list)) else v for k, v in inner.items()}
    return flat


def columns(table: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for row in table for key in row))


def as_csv(table: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns(table), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return text.getvalue()


def write_parquet(file: Path, table: Sequence[Mapping[str, Any]]) -> bool:
    """False without pyarrow, which is not among Merit's own dependencies. A column of mixed kinds is one of words."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        return False
    made = {}
    for name in columns(table):
        values = [row.get(name) for row in table]
        kinds = {type(value) for value in values if value is not None}
        mixed = len(kinds) > 1 and not kinds <= {int, float}
        made[name] = [
            None if v is None else str(v) if mixed else float(v) if kinds == {int, float} else v for v in values
        ]
    pyarrow.parquet.write_table(pyarrow.table(made), file)
    return True
