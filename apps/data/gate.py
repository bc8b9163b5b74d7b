"""The regression gate of continued pretraining: whether a wave is kept, or taken back because too much was forgotten.

The held-out loss on general data, a mean over tokens, may exceed the lowest that a kept model had, the base model included,
by `tolerance` and no more; measured against the lowest, many small losses cannot add up past it. A wave beyond it is
rolled back: weights and optimiser are those of the last good model, bit for bit, and its rows are not tried again. Then
training stops, or goes on at a lower rate.

This is a rule of our own; a gate with a fixed allowance is common practice, and its numbers are starting points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import Field

from apps import records


class Options(records.Options):
    """When a wave is taken back, and what then."""

    tolerance: float = Field(0.05, ge=0, description="nats a token by which the general loss may exceed its lowest")
    then: Literal["slower", "stop"] = Field("slower", description="after a roll-back: a lower rate, or the end")
    slower: float = Field(0.5, gt=0, lt=1, description="what the rate is multiplied by at each roll-back")


@dataclass(frozen=True, slots=True)
class State:
    """What the gate knows after a wave."""

    lowest: float | None  # general loss of the best kept model, nats a token; None without general data
    rate: float = 1.0  # factor of the learning rate from here on
    stopped: bool = False
    kept: bool = True  # whether the last wave was


def judged(state: State, loss: float | None, options: Options) -> State:
    """The state after a wave that left a general loss of `loss`. One that is no number is never kept; once stopped, always."""
    if state.stopped:
        return replace(state, kept=False)
    if state.lowest is None or loss is None:
        return replace(state, kept=True)
    if loss <= state.lowest + options.tolerance:
        return replace(state, lowest=min(state.lowest, loss), kept=True)
    return State(state.lowest, state.rate * options.slower, options.then == "stop", False)


def general_loss(losses: Mapping[str, Mapping[str, float]], general: Sequence[str]) -> float | None:
    """The mean over the tokens of the general domains; None without any. `losses` is {domain: {"loss", "tokens"}}."""
    tokens = sum(losses[name]["tokens"] for name in general)
    return sum(losses[name]["loss"] * losses[name]["tokens"] for name in general) / tokens if tokens else None
