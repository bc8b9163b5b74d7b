"""A teacher's plays in a pupil's words: the same texts, under the pupil's own prompts and in its own tokens.

The topology is run again and handed what the teacher said, while every prompt is rendered by the pupil's templates. So
a teacher may have other prompts, another chat template, another vocabulary. Nothing is sampled: who spoke stays the teacher,
and log-probabilities are NaN, as nobody drew these very tokens. A text that was cut off gets no end token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from apps.effects import Ask
from apps.inference.driver import Team, done, fill
from apps.inference.models import Models
from apps.inference.play import Want, begin
from apps.records import MeritError, Task, Trace, Turn


def retold(trace: Trace, task: Task, pupil: Team, engine: Models, known: dict[tuple[int, str], Turn]) -> Trace:
    """One trace. Turns that traces share (a tree) stay shared through `known`."""
    said = {turn.path: turn for turn in trace.turns}
    flat = begin(pupil.topology, task, pupil.options)
    turns: list[Turn] = []
    results: list[Any] | None = None
    while True:
        try:
            wants = flat.send(results)
        except StopIteration as end:
            return Trace(trace.task, trace.sample, tuple(turns), end.value.text, end.value.converged)
        heard = [_heard(want, said, task, pupil, engine, known) for want in wants]
        turns += [one for one in heard if isinstance(one, Turn)]
        results = [one.text if isinstance(one, Turn) else one for one in heard]


def _heard(want: Want, said: Mapping[str, Turn], task: Task, pupil: Team, engine: Models, known: dict) -> Any:
    if not isinstance(want.effect, Ask):
        return done(task, want)
    if want.path not in said:
        raise MeritError(f"task {task.id}: the teacher's play has no turn {want.path}; was its topology another one?")
    turn, policy = said[want.path], pupil.policies[want.effect.role]
    prompt, ids = engine.render(pupil.system, fill(pupil.prompts, want.effect), policy)
    if (id(turn), prompt) not in known:
        known[id(turn), prompt] = _in_tokens(engine.completion(turn.text, policy), turn, prompt, ids)
    return known[id(turn), prompt]


def _in_tokens(ids: np.ndarray, turn: Turn, prompt: str, prompt_ids: np.ndarray) -> Turn:
    """The turn as a whole completion, or as its beginning if it was cut off."""
    ids = ids[:-1] if turn.finish == "length" or not turn.text else ids
    unknown = np.full(len(ids), np.nan, np.float32)
    return replace(turn, prompt=prompt, prompt_ids=prompt_ids, completion_ids=ids, logprobs=unknown)
