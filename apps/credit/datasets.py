"""Credit as data sets: rows for other trainers, in the column names of Hugging Face's TRL. Not a method.

Pure functions on graded traces and their credit: no model, no new replay. Only what an agent said itself becomes a row
(turns.py); a turn that several traces share is one row, under the first trace that has it. Texts are as they were
shown and said, special tokens left out, so a trainer that encodes them anew may cut them into other tokens; the rows
for RL hold the tokens too.

    sft    prompt, completion         turns worth more than `threshold`
    pairs  prompt, chosen, rejected   same agent, same state, one better by `margin` (as MALT's, arXiv 2412.01928)
    kto    prompt, completion, label  worth more or less than `threshold`, by `margin`; at it a turn is neither
    rl     prompt, completion, value  every turn with its credit: to subtract a baseline is the trainer's part
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from apps.credit.alternatives import alternatives
from apps.credit.turns import ROUNDING, Worth, pairs, valued
from apps.records import Credit, Finding, Graded, MeritError, Question

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rule:
    """Which turns are good, and which are better."""

    threshold: float = 0.0  # the value that parts good turns from bad ones
    margin: float = 0.0  # by how much a turn is better than another, or away from the threshold; 0: by anything


def rows(
    kind: str,
    graded: Sequence[Graded],
    credit: Sequence[Credit],
    findings: Mapping[str, Mapping[Question, Finding]],
    rule: Rule,
) -> list[Row]:
    """The rows of whole groups; `findings` are those of each task's group, by the task's id."""
    turns = valued([g.trace for g in graded], credit, [g.verdict.score for g in graded])
    for _, row in turns:
        if not isfinite(row.value):
            raise MeritError(f"trace {row.trace!r}: the credit {row.value} is no number; assign credit again")
    if kind == "pairs":
        return preferences(turns, rule, _tried(graded, findings))
    return list(KINDS[kind](turns, rule))


def positives(turns: Sequence[Worth], rule: Rule) -> Iterator[Row]:
    """What is worth imitating."""
    return (_said(one) | _beside(one) for one in turns if one[1].value > rule.threshold + ROUNDING)


def preferences(turns: Sequence[Worth], rule: Rule, tried: Sequence[Worth] = ()) -> list[Row]:
    """Pairs of recorded turns by their credit, then pairs of what was said in replays by the score that came of it."""
    found: dict[tuple[str, ...], Row] = {}
    for source, members in (("turns", turns), ("replays", tried)):
        for agent in dict.fromkeys(turn.agent for turn, _ in members):
            for better, worse in pairs([one for one in members if one[0].agent == agent], rule.margin):
                row = _preferred(better, worse) | {"source": source}
                if row["chosen"] != row["rejected"]:  # other tokens may be the same text
                    found.setdefault((agent, better[0].state, row["chosen"], row["rejected"]), row)
    return list(found.values())


def labels(turns: Sequence[Worth], rule: Rule) -> Iterator[Row]:
    """Whether a turn is desirable; no row for one at the threshold, of which credit says neither."""
    for one in turns:
        above = one[1].value - rule.threshold
        if abs(above) > max(rule.margin - ROUNDING, ROUNDING):
            yield _said(one) | {"label": above > 0} | _beside(one)


def values(turns: Sequence[Worth], rule: Rule) -> Iterator[Row]:
    """Every turn with its value, its tokens, and their log-probabilities (nats) when they were sampled."""
    for one in turns:
        turn, _ = one
        sampled = {"prompt_ids": turn.prompt_ids.tolist(), "completion_ids": turn.completion_ids.tolist()}
        sampled |= {"logprobs": [float(str(x)) for x in turn.logprobs], "temperature": turn.sampling.temperature}
        yield _said(one) | _beside(one) | sampled


KINDS = {"sft": positives, "pairs": preferences, "kto": labels, "rl": values}


def _tried(graded: Sequence[Graded], findings: Mapping[str, Mapping[Question, Finding]]) -> list[Worth]:
    groups: dict[str, list[Graded]] = {}
    for g in graded:
        groups.setdefault(g.trace.task, []).append(g)
    return [one for task, group in groups.items() for one in alternatives(group, findings.get(task, {}))]


def _said(one: Worth) -> Row:
    turn, _ = one
    return {"prompt": turn.prompt, "completion": turn.text}


def _preferred(better: Worth, worse: Worth) -> Row:
    (chosen, good), (rejected, bad) = better, worse
    told = {"prompt": chosen.prompt, "chosen": chosen.text, "rejected": rejected.text}
    told |= {"chosen_value": good.value, "rejected_value": bad.value}
    return told | {"chosen_error": good.error, "rejected_error": bad.error} | _place(better)


def _beside(one: Worth) -> Row:
    _, row = one
    return {"value": row.value, "error": row.error, "outcome": row.outcome} | _place(one)


def _place(one: Worth) -> Row:
    turn, row = one
    return {"agent": turn.agent, "task": row.task, "trace": row.trace, "path": turn.path, "policy": turn.policy}
