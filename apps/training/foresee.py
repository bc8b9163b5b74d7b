"""What models have to say of a round's turns, token by token: a value model's expectations, the reference's log-probabilities.

Turns are those that agents spoke themselves, each once, in the order of their first traces: so what was worked out shard by
shard is joined again by counting. A value model reads either what the agent itself was shown (`own`), or before that all
that the team was shown and said until then (`team`), also what the agent never saw: a centralised critic, while the agents
go on acting from their own prompts (MAPPO, arXiv 2103.01955; a value model that knows more cannot bias an advantage as
long as it knows nothing that comes of the token). What is longer than the model's context loses its beginning.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from apps.credit.turns import Worth
from apps.records import MeritError, Tokens, Trace, Turn
from apps.training.rows import Rows

if TYPE_CHECKING:
    from apps.training.trainer import Trainer

View = Literal["own", "team"]
Spoken = tuple[Turn, tuple[Turn, ...]]  # a turn, and all turns of its trace before it
FILE = "tokens.npz"
NOTHING = np.zeros(0, np.float32)


def spoken(traces: Sequence[Trace]) -> list[Spoken]:
    """Every turn that an agent spoke itself, once, with what was said before it."""
    found: dict[int, Spoken] = {}
    for trace in traces:
        for place, turn in enumerate(trace.turns):
            if not turn.stand_in and len(turn.completion_ids):
                found.setdefault(id(turn), (turn, trace.turns[:place]))
    return list(found.values())


def learner(agent: str, view: View) -> str:
    """The name of the value model that reads an agent's turns: each agent's own, or one for the whole team."""
    return "team.value" if view == "team" else f"{agent}.value"


def learners(agents: Sequence[str], view: View) -> list[str]:
    """The value models of a team: one an agent, or one for all."""
    return list(dict.fromkeys(learner(agent, view) for agent in agents))


def context_of(model: Path) -> float:
    """The most tokens that a model takes."""
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    return config.get("text_config", config).get("max_position_embeddings") or math.inf


def view_of(said: Spoken, view: View, context: float) -> np.ndarray:
    """What a value model reads before a turn's completion, int32 (P,)."""
    turn, before = said
    parts = (
        [ids for earlier in before for ids in (earlier.prompt_ids, earlier.completion_ids)] if view == "team" else []
    )
    read = np.concatenate([*parts, turn.prompt_ids]).astype(np.int32)
    room = context - len(turn.completion_ids)
    return read if len(read) <= room else read[len(read) - max(0, int(room)) :]


def rows_of(said: Sequence[Spoken], view: View, context: float, **columns: Sequence[np.ndarray]) -> Rows:
    """Rows that a value model reads, or with the columns `targets` and `values` is taught by."""
    prompts = [view_of(one, view, context) for one in said]
    completions = [turn.completion_ids for turn, _ in said]
    temperature = said[0][0].sampling.temperature or 1.0 if said else 1.0
    logprobs = [turn.logprobs for turn, _ in said]
    kept = [turn.kept for turn, _ in said if turn.kept is not None]
    kept = kept if len(kept) == len(said) else []
    return Rows(prompts, completions, logprobs, np.ones(len(said)), temperature, columns=columns, kept=kept)


def expectations(trainer: Trainer, rows: Rows) -> list[np.ndarray]:
    """What the scalar head says before each completion token, float32 (C,) a row."""
    return trainer.score(rows, rows.temperature, exact=False, figure="values")


def write(folder: Path, figures: Sequence[np.ndarray]) -> None:
    """One figure a completion token of each turn, in order."""
    flat = np.concatenate([np.asarray(row, np.float32) for row in figures] or [NOTHING])
    np.savez_compressed(folder / FILE, values=flat, lengths=np.array([len(row) for row in figures], np.int64))


def read(folders: Sequence[Path], turns: Sequence[Turn]) -> list[np.ndarray]:
    """The figures of all shards, float64 (C,) a turn. MeritError where they are not those of `turns`."""
    found: list[np.ndarray] = []
    for folder in folders:
        with np.load(folder / FILE, allow_pickle=False) as file:
            found += np.split(file["values"].astype(np.float64), np.cumsum(file["lengths"]))[:-1]
    if [len(row) for row in found] != [len(turn.completion_ids) for turn in turns]:
        raise MeritError(
            f"{folders[0].parent if folders else 'no folder'}: figures of {len(found)} turns meet {len(turns)} turns of "
            "other lengths; the shards are not those that were played"
        )
    return found


def told(
    turns: Sequence[Worth], traces: Sequence[Trace], values: Sequence[np.ndarray] | None, reference: Sequence | None
) -> list[Worth]:
    """The turns with all that is known of their tokens; `values` and `reference` (log-probabilities) in the order of `turns`."""
    zeros = [np.zeros(len(turn.completion_ids)) for turn, _ in turns]
    apart = (
        [turn.logprobs - np.asarray(r) for (turn, _), r in zip(turns, reference, strict=True)] if reference else zeros
    )
    after = follows(turns, traces)
    known = zip(turns, values or zeros, apart, strict=True)
    return [
        (turn, replace(row, tokens=Tokens(np.asarray(d, np.float64), np.asarray(v, np.float64), after[id(turn)])))
        for (turn, row), v, d in known
    ]


def follows(turns: Sequence[Worth], traces: Sequence[Trace]) -> Mapping[int, tuple]:
    """id of a turn -> ((key of a next turn of the same agent, share of its traces that go on so), …)."""
    keys = {id(turn): (row.trace, row.agent, row.index) for turn, row in turns}
    through: Counter[int] = Counter()
    nexts: dict[int, Counter[int]] = defaultdict(Counter)
    for trace in traces:
        last: dict[str, int] = {}
        for turn in trace.turns:
            if id(turn) in keys:
                through[id(turn)] += 1
                if turn.agent in last:
                    nexts[last[turn.agent]][id(turn)] += 1
                last[turn.agent] = id(turn)
    return {one: tuple((keys[n], count / through[one]) for n, count in nexts[one].items()) for one in keys}
