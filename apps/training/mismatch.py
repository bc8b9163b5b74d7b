"""Completions under prompts that they do not answer: what KTO's reference point is estimated from (arXiv 2402.01306, 3.2).

Pure; the trainer scores these rows without gradient.
"""

from __future__ import annotations

import numpy as np

from apps.training.rows import Rows


def mismatched(rows: Rows, members: np.ndarray, context: float) -> Rows:
    """Each member's prompt with the completion of the next member, in a circle, that has another prompt.

    A member without such a partner is left out; a completion is cut where it would leave the model's context.
    """
    found = [(i, partner(rows, members, place)) for place, i in enumerate(members)]
    pairs = [(rows.prompts[i], rows.completions[j]) for i, j in found if j is not None]
    prompts = [prompt for prompt, _ in pairs]
    completions = [said[: int(min(len(said), context - len(prompt)))] for prompt, said in pairs]
    nothing = [np.zeros(0, np.float32)] * len(pairs)
    return Rows(prompts, completions, nothing, np.ones(len(pairs)), rows.temperature)


def partner(rows: Rows, members: np.ndarray, place: int) -> int | None:
    """The next member, in a circle, whose prompt differs from that of the member at `place`; None where none does."""
    own = rows.prompts[members[place]]
    others = np.concatenate([members[place + 1 :], members[:place]])
    return next((int(j) for j in others if not np.array_equal(rows.prompts[j], own)), None)
