"""The stage `losses`: held-out losses before and after training, compared in pairs; for continued pretraining its waves too."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from apps.evaluation.statistics import percentiles, resampled

CONFIDENCE = 0.95


def losses(out: Path, inputs: Mapping[str, Sequence[Path]], options: Mapping[str, Any]) -> dict[str, Any]:
    """Writes `summary.json`. Inputs: `before` and `after` (of the stage `likelihood`), `data`, and a course's `gate` and `mix`."""
    before, after = (_read(inputs[name][0] / "likelihood.json") for name in ("before", "after"))
    found: dict[str, Any] = {
        "name": options["name"],
        "data": _read(inputs["data"][0] / "facts.json"),
        "losses": {domain: compared(before[domain]["rows"], after[domain]["rows"]) for domain in before},
        "waves": [
            {**_read(mix / "mix.json"), **_read(gate / "gate.json")}
            for mix, gate in zip(inputs.get("mix", ()), inputs.get("gate", ()), strict=True)
        ],
    }
    if inputs.get("extend") and (inputs["extend"][0] / "fragmentation.txt").is_file():
        found["fragmentation"] = (inputs["extend"][0] / "fragmentation.txt").read_text(encoding="utf-8")
    found["table"] = table(found)
    (out / "summary.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return {"losses": {domain: row["after"] for domain, row in found["losses"].items()}}


def compared(before: Sequence[Sequence[float]], after: Sequence[Sequence[float]], seed: int = 0) -> dict[str, Any]:
    """Nats a token before and after, and the difference with its 95 % interval. Rows are [nats in all, tokens].

    The interval is a bootstrap over rows, which are drawn whole: tokens of one text are alike. Both models see the same draws.
    """
    table = np.array([[b, a, tokens] for (b, tokens), (a, _) in zip(before, after, strict=True)], np.float64)
    totals, drawn = table.sum(0), resampled(table, seed)
    difference = percentiles((drawn[:, 1] - drawn[:, 0]) / drawn[:, 2], CONFIDENCE)
    return {
        "before": totals[0] / totals[2],
        "after": totals[1] / totals[2],
        "difference": (totals[1] - totals[0]) / totals[2],
        "low": difference.low,
        "high": difference.high,
        "rows": len(table),
        "tokens": int(totals[2]),
    }


def table(found: Mapping[str, Any]) -> str:
    """For the terminal."""
    return "\n".join([*_of_losses(found["losses"]), *_of_waves(found["waves"]), *_of_data(found)])


def _of_losses(losses: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    if not losses:
        yield "nothing was held out, so nothing was measured"
        return
    yield f"{'held-out loss, nats a token':<30}{'rows':>7}{'before':>9}{'after':>9}   difference"
    for domain, row in losses.items():
        yield (
            f"{domain:<30}{row['rows']:>7}{row['before']:>9.4f}{row['after']:>9.4f}   {row['difference']:+.4f} "
            f"[{row['low']:+.4f}, {row['high']:+.4f}]"
        )


def _of_waves(waves: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for number, wave in enumerate(waves, 1):
        drawn = ", ".join(f"{name} {count}" for name, count in wave["counts"].items())
        what = "not run" if not sum(wave["counts"].values()) else "kept" if wave["kept"] else "rolled back"
        loss = "" if wave["general_loss"] is None else f"; general loss {wave['general_loss']:.4f}"
        yield f"wave {number}: {what}; rows: {drawn or 'none'}; rate × {wave['rate_used']:g}{loss}"


def _of_data(found: Mapping[str, Any]) -> Iterator[str]:
    for name, data in found["data"].items():
        if isinstance(data, dict) and data.get("shortened"):
            yield f"{name}: {data['shortened']} rows lost a part of their context to fit; their answers are whole"
        if isinstance(data, dict) and data.get("left_out"):
            yield f"{name}: {data['left_out']} answers did not fit the context and were left out"
    if "fragmentation" in found:
        yield "\n" + found["fragmentation"].rstrip()


def _read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))
