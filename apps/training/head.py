"""From hidden states to figures of the next token, without ever holding all logits: (tokens x vocabulary) may be gigabytes.

The vocabulary's logits are made for some tokens at a time and are gone when their figures are known; for the gradient they
are made again. That is one product more, and little memory: 4,096 tokens of a vocabulary of 150,000 are 2.5 GB in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

LOGITS = 1 << 24  # at once: 64 MB of float32; and some few times that while figures are worked out


def over_chunks(work: Callable[..., Tensor], vocabulary: int, hidden_NH: Tensor, *others: Tensor) -> Tensor:
    """`work` on parts of the N tokens, joined. What a part needs in between is forgotten, and made again for the gradient."""
    import torch
    from torch.utils.checkpoint import checkpoint

    size = max(1, LOGITS // vocabulary)
    if len(hidden_NH) <= size:
        return work(hidden_NH, *others)
    parts = zip(*(tensor.split(size) for tensor in (hidden_NH, *others)), strict=True)
    return torch.cat([checkpoint(work, *part, use_reentrant=False) for part in parts])


def logprobs(logits_NV: Tensor, tokens_N: Tensor, temperature: float) -> Tensor:
    """log π of each token, (N,) nats."""
    from torch.nn.functional import cross_entropy

    return -cross_entropy(logits_NV.float() / temperature, tokens_N, reduction="none")


def logprobs_and_entropy(logits_NV: Tensor, tokens_N: Tensor, temperature: float) -> Tensor:
    """log π of each token, and the entropy of the distribution that it was drawn from: (N, 2) nats."""
    import torch

    table_NV = (logits_NV.float() / temperature).log_softmax(-1)
    chosen_N = table_NV.gather(-1, tokens_N[:, None])[:, 0]
    return torch.stack([chosen_N, -(table_NV.exp() * table_NV).sum(-1)], -1)


def kept_logprobs(logits_NV: Tensor, tokens_N: Tensor, temperature: float, kept_NK: Tensor) -> Tensor:
    """log π of each token among the ids that it was drawn from (−1: none), and the entropy there: (N, 2) nats.

    Top-k and top-p cut a distribution and renormalise what is left: the policy that was sampled from is this one.
    """
    import torch

    scaled_NV = logits_NV.float() / temperature
    table_NK = scaled_NV.gather(-1, kept_NK.clamp(min=0)).masked_fill(kept_NK < 0, -float("inf"))
    mass_N = table_NK.logsumexp(-1)
    chosen_N = scaled_NV.gather(-1, tokens_N[:, None])[:, 0] - mass_N
    table_NK = (table_NK - mass_N[:, None]).masked_fill(kept_NK < 0, 0.0)
    return torch.stack([chosen_N, -(table_NK.exp() * table_NK).sum(-1)], -1)


def divergence(kind: str, student_NV: Tensor, teacher_NV: Tensor, temperature: float) -> Tensor:
    """Between the teacher's and the student's next-token distributions at a temperature, from their logits: (N,) nats.

    `forward` is KL(teacher‖student), `reverse` KL(student‖teacher), `jensen_shannon` the mean KL of both to their middle.
    """
    import torch

    student, teacher = ((logits.float() / temperature).log_softmax(-1) for logits in (student_NV, teacher_NV))
    if kind == "jensen_shannon":
        middle = torch.logaddexp(student, teacher) - torch.log(torch.tensor(2.0, dtype=student.dtype))
        return (kl(teacher, middle) + kl(student, middle)) / 2
    return {"forward": lambda: kl(teacher, student), "reverse": lambda: kl(student, teacher)}[kind]()


def kl(log_p_NV: Tensor, log_q_NV: Tensor) -> Tensor:
    """KL(p‖q), (N,) nats."""
    return (log_p_NV.exp() * (log_p_NV - log_q_NV)).sum(-1)
