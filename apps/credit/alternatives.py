"""What agents said in one state, and what came of it: recorded turns beside those that replays sampled anew.

Not a method: what is on the record already, read for preferences. A replay with `fresh="next"` says one turn again and
plays on, so its score tells what came of those words where the recorded ones had been. Several plays that went on
from the same words are averaged, the recorded ones among them. A value here is a mean score in 0..1, not credit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import sqrt

import numpy as np

from apps.credit.turns import Worth
from apps.records import Finding, Graded, Question, Replay, Turn, Valued

NOTHING = np.zeros(0, np.int32)  # the record keeps a replayed turn's text, not its tokens


def alternatives(group: Sequence[Graded], findings: Mapping[Question, Finding]) -> list[Worth]:
    """Everything that was said in a state where a turn was sampled anew; `group`: all traces of one task, in order."""
    spoken = [(g, turn) for g in group for turn in g.trace.turns if not turn.stand_in and len(turn.completion_ids)]
    scores: dict[tuple[str, str], dict[str, list[float]]] = {}  # (agent, state) -> text -> what came of it
    for question, came in findings.items():
        if isinstance(question, Replay) and question.fresh == "next" and not question.absent and came.text:
            again = group[question.trace].trace.turns[question.keep]
            scores.setdefault((again.agent, again.state), {}).setdefault(came.text, []).append(came.score)
    first: dict[tuple[str, str], tuple[Graded, Turn]] = {}
    for graded, turn in spoken:
        if (turn.agent, turn.state) in scores:
            first.setdefault((turn.agent, turn.state), (graded, turn))
            scores[turn.agent, turn.state].setdefault(turn.text, []).append(graded.verdict.score)
    return [_worth(*first[state], text, came) for state in first for text, came in scores[state].items()]


def _worth(graded: Graded, turn: Turn, text: str, scores: Sequence[float]) -> Worth:
    mean, trace = float(np.mean(scores)), graded.trace
    error = float(np.std(scores, ddof=1)) / sqrt(len(scores)) if len(scores) > 1 else 0.0
    said = turn if text == turn.text else replace(turn, text=text, completion_ids=NOTHING)
    return said, Valued(trace.task, trace.id, turn.agent, 0, turn.state, mean, mean, error)
