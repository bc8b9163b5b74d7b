"""The stage `report`: `report.html`, one self-contained file for people, and `summary.json` for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from apps.report import page
from apps.report.summary import summarise

PAGE, SUMMARY = "report.html", "summary.json"


def report(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """Writes both.

    Inputs: `before_greedy`, `after_greedy`, `before_sampled`, `after_sampled` (a `measure` each, same tasks);
    `validation` (`measure` of the untrained team, then of each round's candidate; or the round's last `promote`); `promote`
    (one a round, or one a round and agent); of a chain `stages` (scores of the team that each left); `train`, `batch`,
    `rollout`, `grade`, `assign`, `replay` (all rounds'); `show_before`, `show_after` (rollout, grade, assign of the same
    tasks); optionally `tasks` (for the questions). Folders under any other name count in seconds and tokens.

    Options: `config` (the resolved run), `agents` (roles in order), `duties` (by role), optionally `command`; of a chain
    `stages` (their names).
    """
    summary = summarise(inputs, options)
    (out / SUMMARY).write_text(json.dumps(summary, indent=1) + "\n")
    (out / PAGE).write_text(page.render(summary, inputs, options), encoding="utf-8")
    headline = summary["accuracy"]
    return {
        mode: {"before": a["before"]["value"], "after": a["after"]["value"], "p": a["p"], "n": a["n"]}
        for mode, a in headline.items()
    }
