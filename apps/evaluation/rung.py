"""The stage `rung`: which configurations of a study go on, by the validation scores of their runs.

Successive halving in synchronous rungs (arXiv 1502.07816, section 3): all runs of a rung are waited for, so the decision depends on
what they came to and never on who came first. It looks at validation tasks alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FILE = "rung.json"


def rung(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """Writes `rung.json`. Inputs: the `measure` or `promote` folders of each configuration's runs, by its name.

    Options: `order` (the names in the manifest's order), `keep` (how many go on), `rounds` (what the runs have had).
    """
    scores = {name: [_score(folder) for folder in inputs[name]] for name in options["order"] if name in inputs}
    kept = survivors({name: sum(values) / len(values) for name, values in scores.items()}, options["keep"])
    found = {"rounds": options["rounds"], "scores": scores, "kept": kept}
    (out / FILE).write_text(json.dumps(found, indent=1) + "\n")
    return {"kept": kept, "of": len(scores)}


def survivors(scores: Mapping[str, float], keep: int) -> list[str]:
    """The `keep` best, in the order of `scores`; of equals the earlier one."""
    ranked = sorted(scores, key=lambda name: -scores[name])[:keep]  # stable
    return [name for name in scores if name in ranked]


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / FILE).read_text())


def _score(folder: Path) -> float:
    return float(json.loads((folder / "scores.json").read_text())["accuracy"]["value"])
