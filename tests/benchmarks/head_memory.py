"""What the log-probabilities of 4,096 tokens cost in memory where the vocabulary has 150,000 words: forward and backward.

The peak of a fresh process each (resident set), less what it held before: hidden states and the head's weights are there by
then. All logits in float32 would be 2.3 GiB; TRL's selective log-softmax holds them, and their gradient.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator

from tests.benchmarks import baseline
from tests.benchmarks.figures import Figure

TOKENS, VOCABULARY, HIDDEN, TEMPERATURE = 4096, 150_000, 64, 0.7
CALL = "from tests.benchmarks import head_memory; head_memory.measure(head_memory.{way})"


def figures() -> Iterator[Figure]:
    mine = float(aside("ours"))
    other = float(aside("theirs")) if baseline.installed() else None
    whole = TOKENS * VOCABULARY * 4 / 2**20
    remark = f"all logits: {whole:,.0f} MiB; " + ("against TRL's" if other else "no baseline: TRL is not installed")
    yield Figure("head_memory", mine, "MiB", other, remark)


def aside(way: str) -> str:
    """What this file says of one way, in a process of its own: a child's peak begins with what its parent holds."""
    return subprocess.run(
        [sys.executable, "-c", CALL.format(way=way)], check=True, capture_output=True, text=True
    ).stdout


def measure(way) -> None:
    import torch

    torch.manual_seed(0)
    hidden = torch.randn(TOKENS, HIDDEN, requires_grad=True)
    weights = torch.randn(VOCABULARY, HIDDEN) / HIDDEN**0.5
    tokens = torch.randint(VOCABULARY, (TOKENS,))
    before = peak()
    way(hidden, weights, tokens).sum().backward()
    assert torch.isfinite(hidden.grad).all()
    print(peak() - before)


def ours(hidden, weights, tokens):
    from torch.nn.functional import linear

    from apps.training import head

    return head.over_chunks(lambda h, t: head.logprobs(linear(h, weights), t, TEMPERATURE), VOCABULARY, hidden, tokens)


def theirs(hidden, weights, tokens):
    from torch.nn.functional import linear
    from trl.trainer.utils import selective_log_softmax

    return selective_log_softmax(linear(hidden, weights), tokens, temperature=TEMPERATURE)


def peak() -> float:
    """MiB. What importing takes is in it from the start, since both ways are imported before."""
    import apps.training.head

    if baseline.installed():
        import trl.trainer.utils  # noqa: F401
    assert apps.training.head
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 ** (2 if sys.platform == "darwin" else 1)
