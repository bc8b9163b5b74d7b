"""Whether training goes well: the figures of each agent in each round, and when they should worry.

A row: round, kl (nats a token, to the base model: measured after the training, else by the objective), clip_fraction, gradient_norm
(before clipping), loss (each the mean of the round's last ten steps), mismatch (|mean π_θ/π_old − 1| at the first step,
where both are the same policy: 0 but for numerics), entropy (estimated: −mean log-probability of a sampled token,
nats), length (tokens of a completion), no_variance (share of turns that gave no row to train on), unparsed (share of
turns whose text could not be parsed), turns, explained (the share of the returns' variance that the agent's value model had
foreseen, before it was trained on them; 0 in the first round). What is not known is null.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import nan
from pathlib import Path
from typing import Any

import numpy as np

from apps import answer
from apps.records import Graded, Turn, Verdict
from apps.report.rounds import Played, Round, facts

LAST = 10  # steps at the end of a round that stand for it
KL_ALARM = 0.5  # nats a token
FLAT = 0.01  # a held-out accuracy that rose by less


def steps(folder: Path) -> list[dict[str, float]]:
    """The metrics of each optimiser step of a `train` folder."""
    path = folder / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def of_rounds(
    trained: Sequence[Round], plays: Sequence[Played], duties: Mapping[str, str]
) -> dict[str, list[dict[str, Any]]]:
    """agent → a row a round."""
    found: dict[str, list[dict[str, Any]]] = {agent: [] for agent in duties}
    for r, p in zip(trained, plays, strict=True):
        for agent, folder in r.train.items():
            row = {"round": r.number, **of_training(steps(folder)), "no_variance": no_variance(r.batch, agent)}
            row["explained"] = explained(r.batch, agent)
            row["kl"] = facts(folder).get("kl") or row["kl"]
            row |= of_turns([(t, v) for g in p.graded for t, v in _own(g, agent)], duties.get(agent, ""))
            found.setdefault(agent, []).append(row)
    return found


def of_training(metrics: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The means over the last steps."""
    names = ("kl", "clip_fraction", "gradient_norm", "loss")
    row = {name: _mean([m[name] for m in metrics[-LAST:] if name in m]) for name in names}
    first = metrics[0].get("ratio_mean", nan) if metrics else nan
    return {**row, "mismatch": abs(first - 1)}


def of_turns(turns: Sequence[tuple[Turn, Verdict | None]], duty: str) -> dict[str, float]:
    """What one agent said in a round's plays."""
    spoken = [t for t, _ in turns if len(t.logprobs)]
    lost = [answer.verdict(t.text) is None if duty == "check" else v is not None and v.parsed is None for t, v in turns]
    return {
        "entropy": -_mean(np.concatenate([t.logprobs for t in spoken])) if spoken else nan,
        "length": _mean([len(t.completion_ids) for t in spoken]),
        "unparsed": _mean(lost),
        "turns": len(turns),
    }


def no_variance(batches: Sequence[Path], agent: str) -> float:
    """1 − rows/turns; unknown where the objective makes several rows of a turn (pairs)."""
    said = [facts(folder)[agent] for folder in batches if agent in facts(folder)]
    turns, rows = sum(s["turns"] for s in said), sum(s["rows"] for s in said)
    return 1 - rows / turns if turns and rows <= turns else nan


def explained(batches: Sequence[Path], agent: str) -> float:
    """Of the agent's own value model, or of the team's; unknown without one."""
    told = [facts(folder) for folder in batches]
    found = [t[name]["explained"] for t in told for name in (f"{agent}.value", "team.value") if name in t]
    return _mean([share for share in found if share is not None])


def alarms(
    rows: Mapping[str, Sequence[Mapping[str, float]]], reward: Sequence[float], held_out: Sequence[float]
) -> list[str]:
    """What to look at. A KL alarms only together with a second sign: a habit given up costs nats too."""
    found = []
    for agent, history in rows.items():
        for first, row in zip(history[:1] * len(history), history, strict=True):
            seconds = second_signs(first, row)
            if row["kl"] > KL_ALARM and seconds:
                found.append(
                    f"{agent}, round {row['round']}: KL {row['kl']:.2f} nats a token, and {' and '.join(seconds)}"
                )
    if (
        len(reward) > 1
        and len(held_out) > 1
        and reward[-1] > reward[0] + 5 * FLAT
        and held_out[-1] < held_out[0] + FLAT
    ):
        found.append(
            f"the reward in training rose from {reward[0]:.2f} to {reward[-1]:.2f} while the validation accuracy did not "
            f"({held_out[0]:.2f} to {held_out[-1]:.2f}): the reward may be exploited"
        )
    return found


def second_signs(first: Mapping[str, float], row: Mapping[str, float]) -> list[str]:
    """What may stand beside a large KL; comparisons with NaN are false."""
    signs = {
        "its entropy fell by half": row["entropy"] < first["entropy"] / 2,
        "its completions grew by half": row["length"] > 1.5 * first["length"],
        "more of its turns cannot be parsed": row["unparsed"] > first["unparsed"] + 0.05,
        "more than 30 % of its tokens are clipped": row["clip_fraction"] > 0.3,
    }
    return [text for text, seen in signs.items() if seen]


def _own(graded: Graded, agent: str):
    return [
        (t, v)
        for t, v in zip(graded.trace.turns, graded.turn_verdicts, strict=True)
        if t.agent == agent and not t.stand_in
    ]


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else nan
