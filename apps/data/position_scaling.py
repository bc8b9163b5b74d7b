"""A longer context by scaling rotary positions: what of a model's config changes. Training at that length does the rest.

With d the size of a head, θ_i = base^(−2i/d) the frequencies and s the factor:

- `linear` (position interpolation, arXiv 2306.15595, eq. 3): positions are divided by s;
- `ntk` (NTK-aware, arXiv 2309.00071, section 3.1): base ← base · s^(d/(d−2)), so that the lowest frequency is divided by s
  and the highest stays;
- `yarn` (arXiv 2309.00071, sections 3.2 to 3.4): high frequencies stay, low ones are divided by s, with a ramp between (α 1, β 32),
  and attention is scaled by (0.1 ln s + 1)².

Hugging Face's models read this from `rope_parameters`. Its `dynamic` rule, which changes with the length of each input, is
not here: cached keys of a long answer would have been turned by another base.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from apps import records
from apps.records import MeritError


class Options(records.Options):
    """How positions are scaled."""

    name: Literal["none", "linear", "ntk", "yarn"] = Field("none", description="the rule")
    factor: float = Field(1.0, ge=1, description="the new context as a multiple of the old one")


def scaled(config: Mapping[str, Any], options: Options) -> dict[str, Any]:
    """The entries of a model's config that change: `rope_parameters` and `max_position_embeddings`."""
    if options.name == "none":
        return {}
    rope, context = config.get("rope_parameters"), config.get("max_position_embeddings")
    if not rope or "rope_theta" not in rope or not context:
        raise MeritError(
            f"positions.name={options.name}: this model ({config.get('model_type')}) has no single set of rotary positions to "
            f"scale; its rope_parameters are {rope!r}"
        )
    if rope.get("rope_type", "default") != "default":
        raise MeritError(
            f"positions.name={options.name}: this model's positions are scaled already ({rope['rope_type']})"
        )
    return {
        "rope_parameters": RULES[options.name](dict(rope), options.factor, head_size(config), context),
        "max_position_embeddings": round(context * options.factor),
    }


def head_size(config: Mapping[str, Any]) -> int:
    """The rotated size of a head."""
    whole = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    return int(whole * (config.get("rope_parameters") or {}).get("partial_rotary_factor", 1.0))


def _linear(rope: dict[str, Any], factor: float, size: int, context: int) -> dict[str, Any]:
    return {**rope, "rope_type": "linear", "factor": factor}


def _ntk(rope: dict[str, Any], factor: float, size: int, context: int) -> dict[str, Any]:
    return {**rope, "rope_type": "default", "rope_theta": rope["rope_theta"] * factor ** (size / (size - 2))}


def _yarn(rope: dict[str, Any], factor: float, size: int, context: int) -> dict[str, Any]:
    return {**rope, "rope_type": "yarn", "factor": factor, "original_max_position_embeddings": context}


RULES = {"linear": _linear, "ntk": _ntk, "yarn": _yarn}
