"""What a trainer reads of a model: figures of every completion token of a micro-batch, as one tensor (K, B, T).

- `logprobs`: log π, nats, at the sampler's temperature, and where its draws were cut (top-k, top-p) among what was left.
- `entropy`: of the distribution that the token was drawn from, nats.
- `scores`: the scalar head after reading the token; `values`: the same before it, at the token that it follows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from apps.training import head
from apps.training.layout import Layout, lay
from apps.training.rows import Rows

if TYPE_CHECKING:
    from torch import Tensor, nn

    from apps.training.options import Options

SCALAR = "scalar_head"  # the name of the module, where a policy has one
APART = 1e-3  # nats: the most that a packed row may differ from itself alone


class Forward:
    """Calls a causal language model. `packed` says whether its rows share lines.

    With `keeps` the states before the completion tokens of the last call stay in `kept` (N, H), with their gradient.
    """

    def __init__(self, model: nn.Module, options: Options, keeps: bool = False) -> None:
        self.model, self.options, self.keeps = model, options, keeps
        self.kept: Tensor | None = None
        self.packed = options.packing and can_pack(self)

    def __call__(self, layout: Layout, temperature: float, figures: Sequence[str], exact: bool = False) -> Tensor:
        """(K, B, T), 0 where a row has no token; `exact` computes in float32 whatever the options say."""
        hidden, found = self.hidden(layout, exact), {}
        self.kept = hidden[layout.before_N] if self.keeps else None
        if "logprobs" in figures:
            found |= self._language(hidden[layout.before_N], layout, temperature, "entropy" in figures, exact)
        for name, places in (("scores", layout.here_N), ("values", layout.before_N)):
            if name in figures:
                found[name] = getattr(self.model, SCALAR)(hidden[places].float())[:, 0]
        import torch

        return torch.stack([layout.spread(found[name]) for name in figures])

    def hidden(self, layout: Layout, exact: bool = False) -> Tensor:
        """The last layer's states of all places of the lines, flat: (L·W, H)."""
        with self._precision(layout, exact):
            placed = {"position_ids": layout.positions_LW} if layout.packed else {}
            mask = layout.mask(next(self.model.parameters()).dtype)
            read = self.causal.base_model(input_ids=layout.ids_LW, attention_mask=mask, use_cache=False, **placed)
        return read.last_hidden_state.flatten(0, 1)

    @property
    def causal(self) -> nn.Module:
        """The language model under the adapter."""
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model

    @property
    def vocabulary(self) -> int:
        return self.causal.config.get_text_config().vocab_size

    def logits(self, hidden_NH: Tensor, exact: bool = False) -> Tensor:
        """(N, V): of all tokens at once only where N is small."""
        with self._precision(hidden_NH, exact):
            return self.causal.get_output_embeddings()(hidden_NH)

    def _language(self, hidden_NH: Tensor, layout: Layout, temperature: float, entropy: bool, exact: bool):
        figures = head.logprobs_and_entropy if entropy else head.logprobs
        kept = () if layout.kept_NK is None else (layout.kept_NK,)
        figures = head.kept_logprobs if kept else figures
        found = head.over_chunks(
            lambda h, tokens, *left: figures(self.logits(h, exact), tokens, temperature, *left),
            self.vocabulary,
            hidden_NH,
            layout.tokens_N,
            *kept,
        )
        return {"logprobs": found[:, 0], "entropy": found[:, 1]} if found.ndim == 2 else {"logprobs": found}

    def _precision(self, like: Layout | Tensor, exact: bool):
        import torch

        device = like.ids_LW.device if isinstance(like, Layout) else like.device
        return torch.autocast(device.type, torch.bfloat16, enabled=self.options.dtype == "bfloat16" and not exact)


def can_pack(forward: Forward) -> bool:
    """Whether rows that share lines give what they give alone: tried, with two rows of one prompt and one of another.

    A sliding window is not tried but refused, since it would show in longer rows only.
    """
    import torch

    model, config = forward.model, forward.causal.config.get_text_config()
    if (getattr(config, "sliding_window", None) or math.inf) < (getattr(config, "max_position_embeddings", None) or 0):
        return False
    rows, micro, training = _probe(forward.vocabulary), [0, 1, 2], model.training
    device = next(model.parameters()).device
    model.eval()
    try:
        with torch.no_grad():
            one, other = (
                forward(lay(rows, micro, packed).to(device), 1.0, ("logprobs",), True) for packed in (True, False)
            )
    except (TypeError, ValueError, RuntimeError, IndexError):  # it takes no positions, or no mask of four dimensions
        return False
    finally:
        model.train(training)
    return bool((one - other).abs().max() < APART)


def _probe(vocabulary: int) -> Rows:
    ids = [(np.arange(5, dtype=np.int32) * 7 + start) % vocabulary for start in range(5)]
    return Rows([ids[0], ids[0], ids[1]], ids[2:], [np.zeros(0, np.float32)] * 3, np.ones(3))
