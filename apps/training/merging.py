"""An adapter added to the weights that it was trained on: a whole model, which speaks as the two did together.

W0 + (alpha / r) B A is worked out in float32, so log-probabilities move by rounding alone. What sat on the old model (other adapters,
a scalar head) does not fit the new one.
"""

from __future__ import annotations

from pathlib import Path

from apps.training import policy
from apps.training.options import Options


def merge(model: Path, adapter: Path, out: Path) -> str:
    """Writes the model into `out`, with its tokenizer; returns the digest of its weights."""
    opened = policy.open_frozen(model, adapter, Options())
    return policy.save(opened.merge_and_unload(safe_merge=True), model, out)
