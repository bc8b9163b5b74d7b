"""The batch builder: from traces and credit to the rows that each agent is trained on.

Only what an agent itself said carries loss (apps/credit/turns.py); a turn without an advantage is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

import numpy as np

from apps.credit.turns import pairs
from apps.records import MeritError, Turn, Valued
from apps.training.rows import Rows


def rows_of(
    agents: str | Collection[str],
    turns: Sequence[tuple[Turn, Valued]],
    advantages: Callable[[Sequence[Valued]], Sequence],
    needs: Iterable[str],
) -> Rows:
    """The rows of one agent, or of those that share a policy, as far as the objective's needs go.

    `advantages` sees the turns of all agents, as some estimators compare agents. An objective that needs neither pairs nor
    advantages (SFT) is given the turns with a positive advantage: rejection sampling. One that ranks the candidates of a
    state gets their values as they are, since only their order counts. Where each token has an advantage of its own they are
    a column, and the row's is their mean.

    A policy gradient follows the distribution that was sampled from, cut by top-k and top-p as it was; what compares texts
    (SFT, preference, KTO) reads them under the whole one.
    """
    values = advantages([row for _, row in turns])
    agents = {agents} if isinstance(agents, str) else agents
    mine = [(turn, row, a) for (turn, row), a in zip(turns, values, strict=True) if turn.agent in agents]
    named = {id(turn): f"trace {row.trace!r}, turn {turn.path!r}" for turn, row, _ in mine}
    states = None
    if "pairs" in needs:
        kept = [(turn, 1.0) for pair in pairs([(turn, row) for turn, row, _ in mine]) for turn, _ in pair]
    elif "states" in needs:
        ranked = candidates([(turn, row) for turn, row, _ in mine])
        kept = [member for state in ranked for member in state]
        states = np.repeat(np.arange(len(ranked)), [len(state) for state in ranked])
    elif "advantages" in needs:
        kept = [(turn, a) for turn, _, a in mine if np.isfinite(a).all() and np.any(a)]
    else:
        kept = [(turn, 1.0) for turn, _, a in mine if np.isfinite(a).all() and np.mean(a) > 0]
    by_token = [np.asarray(a, np.float32) for _, a in kept if np.ndim(a)]
    return Rows(
        [turn.prompt_ids for turn, _ in kept],
        [turn.completion_ids for turn, _ in kept],
        [turn.logprobs for turn, _ in kept],
        np.array([np.mean(a) for _, a in kept], np.float64),
        kept[0][0].sampling.temperature or 1.0 if kept else 1.0,
        "pairs" in needs,
        states,
        {"advantages": by_token} if by_token else {},
        kept=drawn_from([turn for turn, _ in kept]) if "advantages" in needs and "mismatch" not in needs else (),
        names=[named[id(turn)] for turn, _ in kept],
    )


def drawn_from(turns: Sequence[Turn]) -> list[np.ndarray]:
    """The ids that each token of each turn was drawn from; none at all where nothing was cut."""
    cut = [turn for turn in turns if not turn.sampling.whole]
    for turn in cut:
        if turn.kept is None:
            raise MeritError(
                f"a turn of {turn.agent!r} was sampled with {turn.sampling}, and it is not known what its tokens were drawn "
                "from: their probabilities cannot be worked out. Sample at temperature > 0 with an engine that keeps it "
                "(transformers), or from the whole distribution (top_p = 1, top_k = 0)"
            )
    return [turn.kept for turn in turns] if cut else []


def candidates(turns: Sequence[tuple[Turn, Valued]]) -> list[list[tuple[Turn, float]]]:
    """What was said in each state, with its value; only states in which values differ."""
    states: dict[tuple[str, str], list[tuple[Turn, float]]] = {}
    for turn, row in turns:
        # Rounded, as sums of Shapley weights leave dust, which would rank what is equal.
        states.setdefault((row.task, row.state), []).append((turn, round(row.value, 8)))
    return [members for members in states.values() if len({value for _, value in members}) > 1]
