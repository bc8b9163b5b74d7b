"""What a training step does differently where several ranks share it: nothing when alone, one sum when data-parallel.

Every objective divides by the counts of the whole step, so the parts of ranks *add up*: gradients and metrics are summed,
never averaged, and uneven parts need no weights. ZeRO is in zero.py. Not here: which rows are whose (steps.py), and how
ranks find one another (apps/platform/mpi.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from apps.platform.mpi import World

if TYPE_CHECKING:
    from torch import Tensor, nn, optim

    from apps.training.options import Options

Moments = dict[str, dict[str, "Tensor"]]  # parameter -> AdamW's exp_avg, exp_avg_sq and step
BUCKET = 1 << 24  # numbers in one message: 64 MB of float32


class Alone:
    """One process. Also what all ways have in common: `forward` gives log-probabilities, `update` ends a step."""

    def __init__(
        self,
        model: nn.Module,
        optimiser: optim.Optimizer,
        options: Options,
        world: World,
        forward: Callable[..., Tensor],
    ) -> None:
        self.parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.optimiser, self.clip, self.world, self.forward = optimiser, options.clip, world, forward

    def begin(self) -> None:
        """Forgets the last step's gradients."""
        self.optimiser.zero_grad(set_to_none=True)

    def backward(self, part: Tensor, last: bool) -> None:
        """Adds the gradient of a micro-batch's part of the loss; `last` of this rank in this step."""
        part.backward()

    def update(self) -> float:
        """Clips and steps; returns the norm of the whole step's gradient. One that is not finite leaves the weights alone."""
        from torch.nn.utils import clip_grad_norm_

        norm = float(clip_grad_norm_(self.parameters.values(), self.clip))
        if math.isfinite(norm):
            self.optimiser.step()
        return norm

    def total(self, sums: Mapping[str, float]) -> dict[str, float]:
        """Each figure, summed over ranks."""
        return dict(sums)

    def moments(self) -> Moments:
        """The optimiser's state by parameter, whole whichever way it is kept; empty before the first step."""
        state = {name: self.optimiser.state.get(parameter, {}) for name, parameter in self.parameters.items()}
        return {name: dict(kept) for name, kept in state.items() if kept}

    def set_moments(self, moments: Moments) -> None:
        for name, kept in moments.items():  # Adam's own count of steps stays where it is
            parameter = self.parameters[name]
            self.optimiser.state[parameter] = {k: v if k == "step" else v.to(parameter) for k, v in kept.items()}

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """While it lasts the trained weights are whole on every rank, so that they can be saved."""
        yield


class Ddp(Alone):
    """Every rank holds all weights and the optimiser; gradients are summed once a step, after the last micro-batch.

    Left out: sending gradients while the rest are still computed. Adapters are small, so that there is little to hide.
    """

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        from torch import distributed

        for parameter in self.parameters.values():  # machines of two kinds may draw an adapter's start differently
            distributed.broadcast(parameter.data, 0)

    def update(self) -> float:
        add_up(list(self.parameters.values()))
        return super().update()

    def total(self, sums: Mapping[str, float]) -> dict[str, float]:
        return add_figures(sums, next(iter(self.parameters.values())).device)


def add_up(parameters: list[nn.Parameter]) -> None:
    """Each gradient becomes its sum over ranks. One that no rank has stays None, which AdamW leaves alone."""
    import torch

    if not parameters:
        return
    there = torch.tensor([p.grad is not None for p in parameters], dtype=torch.int32, device=parameters[0].device)
    torch.distributed.all_reduce(there)
    mine = [p for p, ranks in zip(parameters, there.tolist(), strict=True) if ranks]
    for bucket in buckets(mine):
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).ravel() for p in bucket])
        torch.distributed.all_reduce(flat)
        for parameter, part in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
            parameter.grad = part.view_as(parameter)


def buckets(parameters: list[nn.Parameter], numbers: int = BUCKET) -> Iterator[list[nn.Parameter]]:
    """In order, in parts of at most so many numbers; a larger parameter is a part of its own."""
    part: list[nn.Parameter] = []
    for parameter in parameters:
        if part and sum(p.numel() for p in part) + parameter.numel() > numbers:
            yield part
            part = []
        part.append(parameter)
    if part:
        yield part


def add_figures(sums: Mapping[str, float], device: Any) -> dict[str, float]:
    """Each figure summed over ranks, which all have the same names."""
    import torch

    names = sorted(sums)
    total = torch.tensor([sums[name] for name in names], dtype=torch.float64, device=device)
    torch.distributed.all_reduce(total)
    return dict(zip(names, total.tolist(), strict=True))
