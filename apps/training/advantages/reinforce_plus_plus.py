"""REINFORCE++: credit whitened over the whole batch, whatever the task or agent.

A = (R − mean)/(std + ε) over all turns of all agents, std with n − 1. Source: arXiv 2501.03262. With
`baseline` (REINFORCE++-baseline there, for several samples of a task) the mean of the group is taken off first, over the
turns that share task, agent and the turn's number; groups of one or without variance then give NaN: no gradient.

With `kl_in_reward` β each token of a turn has an advantage of its own, from R_t = R − β Σ_{i≥t} (logp_old − logp_ref)_i: the
credit, less the KL from this token to the turn's end, as published. A turn then has the weight 1 in mean and deviation,
divided among its tokens, so that β = 0 gives what it gives without.

Without a baseline a task that is always solved still pushes its turns up, since others of the batch are not; NaN is given
only where the whole batch is without variance. Each *turn* counts once in the statistics, where libraries count tokens,
so that long answers decide them. One scale for all agents: where their credit differs, `dr_mas`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from apps import records
from apps.records import Valued
from apps.training.advantages import groups


class Options(records.Options):
    """Whether groups are centred first, and how strongly the reference holds, in the reward."""

    baseline: bool = Field(False, description="take the mean of each group off before whitening")
    kl_in_reward: float = Field(0.0, ge=0, description="β of −β Σ (logp_old − logp_ref) from a token on; 0 none")
    epsilon: float = Field(1e-6, ge=0, description="added to the standard deviation")


def wants(options: Options) -> frozenset[str]:
    """What has to be known of tokens."""
    return frozenset({"reference"} if options.kl_in_reward else ())


def advantages(turns: Sequence[Valued], options: Options) -> np.ndarray | list[np.ndarray]:
    """One advantage a turn, float64 (len(turns),); with the KL in the reward one array (C,) a turn. NaN = no gradient."""
    values = groups.credits(turns)
    if options.baseline:
        values = groups.centred(values, [(turn.task, turn.agent, turn.index) for turn in turns])
    if options.kl_in_reward:
        penalties = [options.kl_in_reward * to_go(tokens.divergence) for tokens in groups.told(turns)]
        return whitened([value - penalty for value, penalty in zip(values, penalties, strict=True)], options.epsilon)
    says = np.flatnonzero(~np.isnan(values))
    result = np.full(len(values), np.nan)
    result[says] = groups.normalised(values[says], [None] * len(says), options.epsilon)
    return result


def to_go(numbers: np.ndarray) -> np.ndarray:
    """The sum from each place to the end, (C,) to (C,)."""
    return np.cumsum(numbers[::-1])[::-1]


def whitened(returns: Sequence[np.ndarray], epsilon: float) -> list[np.ndarray]:
    """(R − mean)/(std + ε) over all tokens, a turn's n tokens weighing 1/n each; std with (number of turns) − 1."""
    says = [tokens for tokens in returns if not np.isnan(tokens).any()]
    if len(says) < 2 or np.ptp(np.concatenate(says)) <= groups.ROUNDING:
        return [np.full(len(tokens), np.nan) for tokens in returns]
    mean = np.mean([tokens.mean() for tokens in says])
    spread = np.sqrt(sum(np.mean((tokens - mean) ** 2) for tokens in says) / (len(says) - 1))
    return [(tokens - mean) / (spread + epsilon) for tokens in returns]
