"""Trains one policy on rows: LoRA or all weights, AdamW, a schedule, clipping, accumulation with one global denominator.

One optimiser step is a fixed set of rows, however it is split into micro-batches: an objective divides by the whole step's
counts, so the split changes neither loss nor gradient. Nothing here knows where rows come from or what an objective means.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from apps import records
from apps.records import MeritError
from apps.training.batch import Batch
from apps.training.mismatch import mismatched
from apps.training.rows import Rows

if TYPE_CHECKING:
    import torch
    from torch import Tensor


Beta = Annotated[float, Field(ge=0, lt=1)]


class Lora(records.Options):
    """Low-rank adapters (arXiv 2106.09685): W = W0 + (alpha / r) B A."""

    r: int = Field(16, ge=1, description="rank")
    alpha: float = Field(32, gt=0, description="the update is scaled by alpha / r")
    targets: tuple[str, ...] = Field((), description="names of the layers; empty = all linear layers but the head")


class Options(records.Options):
    """How a policy is trained. The rate is for LoRA, about ten times that of full fine-tuning."""

    lora: Lora | None = Field(Lora(), description="null trains all weights")
    lr: float = Field(1e-3, gt=0, description="peak learning rate")
    schedule: Literal["constant", "linear", "cosine"] = Field("constant", description="after the warm-up")
    warmup: int = Field(0, ge=0, description="steps over which the rate rises from 0")
    floor: float = Field(0.0, ge=0, le=1, description="share of the peak rate that a falling schedule ends at")
    betas: tuple[Beta, Beta] = Field((0.9, 0.95), description="AdamW's moments, each in [0, 1)")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's decoupled decay")
    clip: float = Field(1.0, gt=0, description="largest norm of a step's gradient")
    epochs: int = Field(1, ge=1, description="passes over the rows")
    step_rows: int = Field(64, ge=1, description="rows of one optimiser step")
    micro_tokens: int = Field(4096, ge=1, description="tokens, padding included, of one micro-batch")
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="of the forward pass; weights stay in float32")
    attention: Literal["eager", "sdpa"] = Field("eager", description="eager is faster on a CPU at short lengths")


Loss = Callable[[Batch], "tuple[Tensor, dict[str, float]]"]


class Trainer:
    """A model under training, with its optimiser. `state` and `restore` carry it across tasks."""

    def __init__(self, model: torch.nn.Module, options: Options, device: str = "cpu") -> None:
        import torch

        self.model, self.options, self.device, self.torch = model.to(device), options, device, torch
        self.parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.optimiser = torch.optim.AdamW(
            self.parameters.values(), lr=options.lr, betas=options.betas, weight_decay=options.weight_decay
        )
        self.steps = 0

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
        counts = _counts(rows, members)
        rate = options.lr * scale_at(step, total, options)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.model.train()
        self.optimiser.zero_grad(set_to_none=True)
        if "mismatch" in needs:
            counts["mismatch"] = self.mismatch(rows, members)
        sums: dict[str, float] = {}
        for micro in micro_batches(rows, members, options.micro_tokens):
            value, metrics = loss(self.batch(rows, micro, needs, counts))
            if not torch.isfinite(value):
                raise MeritError(
                    f"the loss became {value.item()} at step {step}, in rows {micro.tolist()[:8]}…; lower lr or clip"
                )
            value.backward()
            for name, part in {"loss": value.item(), **metrics}.items():
                sums[name] = sums.get(name, 0.0) + part
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters.values(), options.clip))
        if not math.isfinite(norm):
            raise MeritError(f"the gradient's norm became {norm} at step {step}; lower lr")
        self.optimiser.step()
        self.steps += 1
        return {"step": self.steps, "lr": rate, "gradient_norm": norm, "tokens": counts["tokens"], **sums}

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
                batch = self.batch(strangers, micro, frozenset({"reference"}), _counts(strangers, everyone))
                total += float((batch.logprobs_BT - batch.reference_BT).sum())
        return total / max(1, len(strangers))

    def logprobs(
        self, ids: Tensor, mask: Tensor, where: tuple[Tensor, ...], temperature: float, exact: bool = False
    ) -> Tensor:
        """log π (B, T) of the completion tokens, 0 at padding; logits are made at those places alone."""
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
        """The optimiser's moments by parameter, and the number of steps."""
        moments = {"steps": self.torch.tensor(self.steps)}
        for name, parameter in self.parameters.items():
            for key, value in self.optimiser.state.get(parameter, {}).items():
                moments[f"{key}/{name}"] = value if self.torch.is_tensor(value) else self.torch.tensor(value)
        return moments

    def restore(self, state: dict[str, Tensor]) -> None:
        """Goes on from a `state`."""
        self.steps = int(state["steps"])
        for name, parameter in self.parameters.items():
            found = {key.split("/", 1)[0]: value for key, value in state.items() if key.split("/", 1)[1:] == [name]}
            if found:  # Adam's own count of steps stays where it is
                self.optimiser.state[parameter] = {k: v if k == "step" else v.to(parameter) for k, v in found.items()}


def plan_steps(rows: Rows, options: Options, seed: int) -> list[np.ndarray]:
    """The rows of each optimiser step: every epoch a new order; pairs and states stay together; steps of nearly equal size."""
    units = wholes(rows, np.arange(len(rows)))
    if not units:
        return []
    rng = np.random.default_rng(seed)
    count = math.ceil(len(units) / max(1, options.step_rows // max(map(len, units))))
    plan = []
    for _ in range(options.epochs):
        order = rng.permutation(len(units))
        plan += [np.concatenate([units[i] for i in part]) for part in np.array_split(order, count)]
    return plan


def wholes(rows: Rows, members: np.ndarray) -> list[np.ndarray]:
    """`members` cut into what is never parted: single rows, pairs, or all candidates of a state."""
    if not len(members):
        return []
    return np.split(members, np.flatnonzero(np.diff(rows.wholes[members])) + 1)


def micro_batches(rows: Rows, members: np.ndarray, tokens: int) -> Iterator[np.ndarray]:
    """`members` by length, in parts of at most `tokens` tokens with padding; pairs and states stay together."""
    lengths = {i: len(rows.prompts[i]) + len(rows.completions[i]) for i in members.tolist()}
    units = [unit.tolist() for unit in wholes(rows, members)]
    groups = sorted(units, key=lambda group: max(lengths[i] for i in group))
    part: list[int] = []
    for group in groups:
        width = max(lengths[i] for i in group)
        if part and (len(part) + len(group)) * width > tokens:
            yield np.array(part)
            part = []
        part += group
    if part:
        yield np.array(part)


def scale_at(step: int, total: int, options: Options) -> float:
    """The share of the peak rate at a step (from 0) of `total`."""
    if step < options.warmup:
        return (step + 1) / options.warmup
    if options.schedule == "constant":
        return 1.0
    progress = min(1.0, (step - options.warmup) / max(1, total - options.warmup))
    falling = 1 - progress if options.schedule == "linear" else (1 + math.cos(math.pi * progress)) / 2
    return options.floor + (1 - options.floor) * falling


def pad(rows: Rows, micro: Sequence[int], torch, device: str):
    """Ids and mask (B, W) padded on the right, and (row, position, column) of every completion token.

    The first token of a row without a prompt has nothing before it and carries no loss.
    """
    sequences = [np.concatenate([rows.prompts[i], rows.completions[i]]) for i in micro]
    width = max(len(s) for s in sequences)
    ids, mask = np.zeros((len(micro), width), np.int64), np.zeros((len(micro), width), np.int64)
    row, position, column = [], [], []
    for b, (i, sequence) in enumerate(zip(micro, sequences, strict=True)):
        ids[b, : len(sequence)], mask[b, : len(sequence)] = sequence, 1
        start = len(rows.prompts[i])
        places = np.arange(max(start, 1), len(sequence))
        row.append(np.full(len(places), b))
        position.append(places)
        column.append(places - start)
    where = tuple(torch.from_numpy(np.concatenate(part)).to(device) for part in (row, position, column))
    return torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device), where


def _counts(rows: Rows, members: np.ndarray) -> dict[str, float]:
    tokens = float(sum(len(rows.completions[i]) - (len(rows.prompts[i]) == 0) for i in members))
    states = 0.0 if rows.states is None else float(len(np.unique(rows.states[members])))
    pairs = len(members) / 2 if rows.paired else 0.0
    return {"tokens": tokens, "sequences": float(len(members)), "pairs": pairs, "states": states}
