"""Trains one policy on rows: LoRA or all weights, AdamW, a schedule, clipping, accumulation with one global denominator.

One optimiser step is a fixed set of rows, however it is split into micro-batches: an objective divides by the whole step's
counts, so the split changes neither loss nor gradient; no more does dealing its rows to ranks. Nothing here knows where rows
come from or what an objective means.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from apps.platform.mpi import World
from apps.records import MeritError
from apps.training.batch import Batch
from apps.training.mismatch import mismatched
from apps.training.options import Options
from apps.training.ranks import Alone, Ddp
from apps.training.rows import Rows
from apps.training.steps import counts_of, micro_batches, pad, plan_steps, scale_at, share

if TYPE_CHECKING:
    import torch
    from torch import Tensor


Loss = Callable[[Batch], "tuple[Tensor, dict[str, float]]"]


class Trainer:
    """A model under training, with its optimiser. `state` and `restore` carry it across tasks.

    Of several ranks each has one, and all call the same methods in the same order.
    """

    def __init__(
        self, model: torch.nn.Module, options: Options, device: str = "cpu", world: World | None = None
    ) -> None:
        import torch

        self.model, self.options, self.device, self.torch = model.to(device), options, device, torch
        self.parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.optimiser = torch.optim.AdamW(
            self.parameters.values(), lr=options.lr, betas=options.betas, weight_decay=options.weight_decay
        )
        self.world, self.steps = world or World(), 0
        self.ranks = self._way()(self.model, self.optimiser, options, self.world, self._logprobs)

    def _way(self) -> type[Alone]:
        if self.options.parallel.startswith("zero"):
            from apps.training.zero import Zero

            return Zero
        return Ddp if self.world.size > 1 else Alone

    def fit(self, rows: Rows, loss: Loss, needs: frozenset[str], seed: int) -> Iterator[dict[str, float]]:
        """Trains; yields each step's metrics. The order of rows is drawn from `seed`; the schedule spans this call."""
        self._check(rows, needs)
        plan = plan_steps(rows, self.options, seed)
        for step, members in enumerate(plan):
            yield self._step(rows, members, loss, needs, step, len(plan))

    @property
    def context(self) -> float:
        """The most tokens that the model takes, prompt and completion."""
        return getattr(self.model.config, "max_position_embeddings", None) or math.inf

    def _check(self, rows: Rows, needs: frozenset[str]) -> None:
        rows.check(needs)
        for i in np.flatnonzero(rows.lengths > self.context)[:1]:
            raise MeritError(f"row {i} has {rows.lengths[i]} tokens, more than the model's context of {self.context}")
        if "reference" in needs and not hasattr(self.model, "disable_adapter"):
            raise MeritError(
                "the objective needs a frozen reference, which is the base model under a LoRA adapter; set training.lora"
            )

    def _step(self, rows: Rows, members: np.ndarray, loss: Loss, needs: frozenset[str], step: int, total: int):
        torch, options = self.torch, self.options
        counts = counts_of(rows, members)
        rate = options.lr * scale_at(step, total, options)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.model.train()
        self.ranks.begin()
        if "mismatch" in needs:
            counts["mismatch"] = self.mismatch(rows, members)
        sums: dict[str, float] = {}
        parts = share(rows, members, options.micro_tokens, self.world.rank, self.world.size)
        for number, (micro, weight) in enumerate(parts, 1):
            value, metrics = loss(self.batch(rows, micro, needs, counts))
            if not torch.isfinite(value):
                raise MeritError(
                    f"the loss became {value.item()} at step {step}, in rows {micro.tolist()[:8]}…; lower lr or clip"
                )
            self.ranks.backward(value * weight, number == len(parts))
            for name, part in {"loss": value.item(), **metrics}.items():
                sums[name] = sums.get(name, 0.0) + weight * part
        norm = self.ranks.update()
        if not math.isfinite(norm):
            raise MeritError(f"the gradient's norm became {norm} at step {step}; lower lr")
        self.steps += 1
        figures = self.ranks.total(sums)
        return {"step": self.steps, "lr": rate, "gradient_norm": norm, "tokens": counts["tokens"], **figures}

    def batch(self, rows: Rows, micro: np.ndarray, needs: frozenset[str], counts: dict[str, float]) -> Batch:
        """The micro-batch as an objective sees it."""
        torch = self.torch
        ids, mask, where = pad(rows, micro, torch, self.device)
        width = max(len(rows.completions[i]) for i in micro)
        old = reference = advantages = None
        if "old" in needs:
            old = torch.zeros(len(micro), width, device=self.device)
            for row, i in enumerate(micro):
                old[row, : len(rows.logprobs[i])] = torch.from_numpy(np.asarray(rows.logprobs[i]))
        if "advantages" in needs:
            column = torch.tensor(rows.advantages[micro], dtype=torch.float32, device=self.device)
            advantages = column[:, None].expand(-1, width)
        states = None if rows.states is None else torch.tensor(rows.states[micro], device=self.device)
        if "reference" in needs:
            with torch.no_grad(), self.model.disable_adapter():
                reference = self.logprobs(ids, mask, where, rows.temperature)
        logprobs = self.logprobs(ids, mask, where, rows.temperature)
        present = torch.zeros(len(micro), width, device=self.device)
        present[where[0], where[2]] = 1
        given = {"old_BT": old, "reference_BT": reference, "advantages_BT": advantages, "state_B": states}
        return Batch(logprobs, present, **counts, **given)

    def mismatch(self, rows: Rows, members: np.ndarray) -> float:
        """Mean logp_θ − logp_ref of the step's completions under other rows' prompts, nats a sequence; no gradient."""
        strangers = mismatched(rows, members, self.context)
        total, everyone = 0.0, np.arange(len(strangers))
        with self.torch.no_grad():
            for micro in micro_batches(strangers, everyone, self.options.micro_tokens):
                batch = self.batch(strangers, micro, frozenset({"reference"}), counts_of(strangers, everyone))
                total += float((batch.logprobs_BT - batch.reference_BT).sum())
        return total / max(1, len(strangers))

    def logprobs(
        self, ids: Tensor, mask: Tensor, where: tuple[Tensor, ...], temperature: float, exact: bool = False
    ) -> Tensor:
        """log π (B, T) of the completion tokens, 0 at padding; logits are made at those places alone."""
        return self.ranks.forward(ids, mask, where, temperature, exact)

    def _logprobs(
        self, ids: Tensor, mask: Tensor, where: tuple[Tensor, ...], temperature: float, exact: bool
    ) -> Tensor:
        torch = self.torch
        row, position, column = where
        automatic = torch.autocast(
            ids.device.type, torch.bfloat16, enabled=self.options.dtype == "bfloat16" and not exact
        )
        with automatic:
            causal = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
            hidden = causal.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
            logits = causal.get_output_embeddings()(hidden[row, position - 1])
        token = ids[row, position]
        chosen = -torch.nn.functional.cross_entropy(logits.float() / temperature, token, reduction="none")
        out = chosen.new_zeros(len(ids), int(column.max()) + 1)
        return out.index_put((row, column), chosen)

    def state(self) -> dict[str, Tensor]:
        """The optimiser's moments by parameter, and the number of steps; the same however many ranks there are."""
        moments = {"steps": self.torch.tensor(self.steps)}
        for name, kept in self.ranks.moments().items():
            for key, value in kept.items():
                moments[f"{key}/{name}"] = value if self.torch.is_tensor(value) else self.torch.tensor(value)
        return moments

    def restore(self, state: dict[str, Tensor]) -> None:
        """Goes on from a `state`, also from one of another number of ranks."""
        self.steps = int(state["steps"])
        moments: dict[str, dict[str, Tensor]] = {}
        for entry, value in state.items():
            key, _, name = entry.partition("/")
            if name in self.parameters:
                moments.setdefault(name, {})[key] = value
        self.ranks.set_moments(moments)
