"""What cannot be trained on, or went wrong in a step, told with the rows that it lies in. Checks; nothing is computed here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from apps.records import MeritError
from apps.training.rows import Rows

NAMED = 8  # rows at most that an error names


class NotFinite(MeritError):
    """A step's loss or gradient is no number. It was not taken: the weights are those of the step before."""


def check_fits(rows: Rows, context: float, vocabulary: int) -> None:
    """MeritError for a row that the model cannot read: longer than its context, or with ids that it does not know."""
    for i in np.flatnonzero(rows.lengths > context)[:1]:
        prompt, said = len(rows.prompts[i]), len(rows.completions[i])
        raise MeritError(
            f"{rows.called(i)} has {prompt + said} tokens ({prompt} of prompt, {said} of completion), more than the model's "
            f"context of {context}; of {len(rows)} rows {int((rows.lengths > context).sum())} are too long. Shorten prompts "
            "or completions, or take a model with a longer context"
        )
    for i, parts in enumerate(zip(rows.prompts, rows.completions, strict=True)):
        ids = np.concatenate(parts)
        if len(ids) and not 0 <= ids.min() <= ids.max() < vocabulary:
            worst = int(ids.min() if ids.min() < 0 else ids.max())
            raise MeritError(
                f"{rows.called(i)} has the token {worst}, and the model's vocabulary ends at "
                f"{vocabulary - 1}: the rows were made with another tokenizer"
            )


def check_loss(rows: Rows, plan: Sequence[np.ndarray]) -> None:
    """MeritError for a step in which no token carries loss."""
    empty = np.array([not rows.own(i).any() for i in range(len(rows))], bool)
    for members in plan:
        if empty[members].all():
            raise MeritError(
                f"an empty batch: in {rows.called(int(members[0]))} and the {len(members) - 1} others of its step no token "
                "carries loss; leave such rows out, or make steps larger (training.step_rows)"
            )


def told(norm: float, step: int, rows: Rows, members: np.ndarray, said: list[list[tuple[float, list[int]]]]) -> str:
    """What went wrong in a step, from what each rank says of losses; the samples are named where rows know theirs."""
    broken = [entry for entries in said for entry in entries]
    found = sorted({i for _, micro in broken for i in micro}) if broken else members.tolist()
    what = f"the loss became {broken[0][0]}" if broken else f"the gradient's norm became {norm}"
    names = [rows.names[i] for i in found[:NAMED] if len(rows.names)]
    which = f"rows {found[:NAMED]}" + "…" * (len(found) > NAMED) + (f" ({'; '.join(names)})" if names else "")
    return f"{what} at step {step}, in {which}; lower training.lr or training.clip, or look at these samples"
