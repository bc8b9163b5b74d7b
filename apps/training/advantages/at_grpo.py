"""AT-GRPO as in the paper: a turn's reward against that of the agent's alternatives in the very same state.

R = α · (score of the trace) + (credit of the turn), normalised as (R − mean)/(std + ε), std with n − 1, over the
turns that share task, agent and state (what the agent saw). Groups of one or without variance give NaN: no gradient.
Source: arXiv 2510.11062, whose reward is α · team + local and whose candidates are K samples from one state; so it
wants the sampling plan `tree`. Traces sampled apart share their first state at most, and their later turns give no
gradient here.

α is 0 by default, as every credit method has the team's outcome in its values already; with a purely local credit
(first_error) set it to 1, the weight of the paper. `alpha=adaptive` is this project's own: in each group α is the team's
share of the two signals' variance, Var(team) / (Var(team) + Var(credit)), in [0, 1]; who tells the candidates apart has
the say, and a signal that is the same for all has none. The paper's going on with the best candidate is the sampling plan
`best`. Not the two-level form of that name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from apps import records
from apps.records import MeritError, Valued
from apps.training.advantages import groups


class Options(records.Options):
    """How team and local reward are mixed."""

    alpha: Annotated[float, Field(ge=0)] | Literal["adaptive"] = Field(
        0.0,
        description="weight of the team's outcome beside the turn's credit; adaptive: by their variances in a group",
    )
    epsilon: float = Field(1e-6, ge=0, description="added to the standard deviation")


def advantages(turns: Sequence[Valued], options: Options) -> np.ndarray:
    """One advantage a turn, float64 (len(turns),); NaN = no gradient."""
    keys, credits = [(turn.task, turn.agent, turn.state) for turn in turns], groups.credits(turns)
    if options.alpha == "adaptive":
        credits = mixed(outcomes(turns), credits, keys)
    elif options.alpha:
        credits = credits + options.alpha * outcomes(turns)
    return groups.normalised(credits, keys, options.epsilon)


def mixed(team: np.ndarray, credits: np.ndarray, keys: Sequence[tuple[str, str, str]]) -> np.ndarray:
    """α · team + credit with each group's own α, (n,): the team's share of the two signals' variance there."""
    result = credits.copy()
    for group in groups.members(keys):
        one, other = team[group], credits[group]
        result[group] += groups.portion(one - one.mean(), other - other.mean()) * one
    return result


def outcomes(turns: Sequence[Valued]) -> np.ndarray:
    """The score of each turn's trace, float64 (len(turns),)."""
    scores = np.array([turn.outcome for turn in turns], dtype=np.float64)
    for position in np.flatnonzero(~np.isfinite(scores))[:1]:
        raise MeritError(
            f"advantages.at_grpo: trace {turns[position].trace!r} has the score {turns[position].outcome}, a number "
            "was expected where alpha > 0; grade it again or set alpha=0"
        )
    return scores
