"""GAE: each token against what a value model expected, the agent's own tokens alone; the value model of PPO.

δ_t = r_t + γV_{t+1} − V_t and A_t = δ_t + γλ A_{t+1}, where t + 1 is the agent's *next own token*: what others say between
two turns of an agent is its environment, takes no time and is nobody's state. A turn's credit is the reward of its last
token; with `kl_in_reward` β each token also has −β(logp_old − logp_ref), the k1 of InstructGPT. After an agent's last
token there is nothing: V = A = 0. Where several plays go on from a turn (a tree) its future is their mean, by their
numbers, which is the mean of the plays' own advantages as both formulas are linear. What a guest spoke for the agent, with
a policy of an earlier round, is not among the turns: an episode ends before it.

Source: arXiv 1506.02438, eqs. 11 and 16; λ = .95 of arXiv 1707.06347; γ = 1, as arXiv 2203.02155 does not discount. The
returns that a value model learns are A + V (before whitening), which is TD(λ).

`span=trace` takes credit for the *reward* of a turn, so that an agent's return is the sum over its later turns. A method
that gives each turn the whole outcome (`uniform`) counts it as often as the agent speaks: `span=turn` then, where a turn
is an episode. Whitening, (A − mean)/(std + ε) over the tokens of an agent in the batch, is no part of GAE but of most
implementations of PPO; a batch without variance gives NaN: no gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from pydantic import Field

from apps import records
from apps.records import Valued
from apps.training.advantages import groups

TOKENS = True  # one array a turn, an advantage for each of its tokens


class Options(records.Options):
    """How far a token is held to account for what comes after."""

    gamma: float = Field(1.0, gt=0, le=1, description="discount of a token; 1 as InstructGPT")
    lam: float = Field(0.95, ge=0, le=1, description="λ: 0 trusts the value model, 1 the returns")
    kl_in_reward: float = Field(0.0, ge=0, description="β of −β(logp_old − logp_ref) in each token's reward; 0 none")
    span: Literal["trace", "turn"] = Field("trace", description="an episode: an agent's turns of a trace, or each turn")
    whiten: bool = Field(True, description="(A − mean)/(std + ε) over an agent's tokens in the batch")
    epsilon: float = Field(1e-6, ge=0, description="added to that standard deviation")


def wants(options: Options) -> frozenset[str]:
    """What has to be known of tokens."""
    return frozenset({"values", "reference"} if options.kl_in_reward else {"values"})


def advantages(turns: Sequence[Valued], options: Options) -> list[np.ndarray]:
    """One float64 (C,) a turn; NaN = no gradient."""
    found = estimates(turns, options)
    return whitened(found, [turn.agent for turn in turns], options.epsilon) if options.whiten else found


def returns(turns: Sequence[Valued], options: Options) -> list[np.ndarray]:
    """What a value model should have expected before each token: A + V, float64 (C,) a turn."""
    found = estimates(turns, options)
    return [a + tokens.values for a, tokens in zip(found, groups.told(turns), strict=True)]


def estimates(turns: Sequence[Valued], options: Options) -> list[np.ndarray]:
    """A of each turn's tokens, before whitening."""
    credits, known = groups.credits(turns), groups.told(turns)
    known = [replace(tokens, after=()) for tokens in known] if options.span == "turn" else known
    place = {(turn.trace, turn.agent, turn.index): i for i, turn in enumerate(turns)}
    found: list[np.ndarray] = [np.zeros(0)] * len(turns)
    for i in sorted(range(len(turns)), key=lambda i: -turns[i].index):  # what comes after first
        after = [(place[key], share) for key, share in known[i].after if key in place]
        rewards = -options.kl_in_reward * known[i].divergence
        rewards[-1] += credits[i]
        value = sum(share * known[j].values[0] for j, share in after)
        future = sum(share * found[j][0] for j, share in after)
        found[i] = estimate(rewards, known[i].values, value, future, options.gamma, options.lam)
    return found


def estimate(
    rewards: np.ndarray, values: np.ndarray, value: float, future: float, gamma: float, lam: float
) -> np.ndarray:
    """A (T,) of consecutive own tokens, from rewards and values (T,); `value` and `future` are V and A of the token after."""
    found = np.zeros(len(rewards))
    for t in range(len(rewards) - 1, -1, -1):
        future = rewards[t] + gamma * value - values[t] + gamma * lam * future
        found[t], value = future, values[t]
    return found


def whitened(found: Sequence[np.ndarray], agents: Sequence[str], epsilon: float) -> list[np.ndarray]:
    """Each agent's tokens normalised together."""
    if not len(found):
        return []
    keys = [agent for agent, tokens in zip(agents, found, strict=True) for _ in tokens]
    return groups.parted(groups.normalised(np.concatenate(found), keys, epsilon), found)
