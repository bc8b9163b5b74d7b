"""Trains one policy on rows: LoRA or all weights, AdamW, a schedule, clipping, accumulation with one global denominator.

One optimiser step is a fixed set of rows, however it is split into micro-batches: an objective divides by the whole step's
counts, so the split changes neither loss nor gradient; no more does dealing its rows to ranks. Nothing here knows where rows
come from or what an objective means.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from apps.platform import mpi
from apps.platform.mpi import World
from apps.records import MeritError, digest
from apps.training import faults, head, lora_linear
from apps.training.batch import Batch
from apps.training.course import WHOLE
from apps.training.forward import SCALAR, Forward
from apps.training.layout import Layout, lay
from apps.training.mismatch import mismatched
from apps.training.options import Options
from apps.training.ranks import Alone, Ddp
from apps.training.rows import Rows
from apps.training.steps import counts_of, micro_batches, plan_steps, share

if TYPE_CHECKING:
    import torch
    from torch import Tensor


LANGUAGE = ("logprobs",)
COLUMNS = {
    "old": "old_BT",
    "anchor": "anchor_BT",
    "targets": "targets_BT",
    "old_values": "old_values_BT",
}  # need -> field
COLUMN_OF = {"old_values": "values"}  # need -> column of the rows, where the two have different names
Loss = Callable[[Batch], "tuple[Tensor, dict[str, float]]"]


class Trainer:
    """A model under training, with its optimiser. `state` and `restore` carry it across tasks.

    Of several ranks each has one, and all call the same methods in the same order.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        options: Options,
        device: str = "cpu",
        world: World | None = None,
        teacher: torch.nn.Module | None = None,
    ) -> None:
        import torch

        self.model, self.options, self.device, self.torch = model.to(device), options, device, torch
        if options.parallel != "zero3":
            lora_linear.quicken(self.model)
        self.parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.optimiser = torch.optim.AdamW(
            self.parameters.values(), lr=options.lr, betas=options.betas, weight_decay=options.weight_decay
        )
        self.world, self.steps = world or World(), 0
        self.forward = Forward(self.model, options, keeps=teacher is not None)
        if options.activation_checkpointing:
            _forget_activations(self.forward.causal)
        self.teacher = teacher and Forward(teacher.to(device), options)
        self.course = WHOLE  # which part of a longer course this task is
        self.anchor: list[np.ndarray] | None = None  # log-probabilities of the rows before the first step
        self.ranks = self._way()(self.model, self.optimiser, options, self.world, self.forward)

    def _way(self) -> type[Alone]:
        if self.options.parallel.startswith("zero"):
            from apps.training.zero import Zero

            return Zero
        return Ddp if self.world.size > 1 else Alone

    def fit(
        self, rows: Rows, loss: Loss, needs: frozenset[str], seed: int, begin: int = 0
    ) -> Iterator[dict[str, float]]:
        """Trains; yields each step's metrics. The order of rows is drawn from `seed`; the schedule spans the `course`.

        The first `begin` steps were done by an earlier process, whose weights, optimiser and anchor this trainer was given.
        """
        self._check(rows, needs)
        if not begin:
            self.anchor = self.score(rows, rows.temperature, exact=False) if "anchor" in needs else None
        plan = plan_steps(rows, self.options, seed)
        faults.check_loss(rows, plan)
        for step in range(begin, len(plan)):
            # what a step draws (dropout) depends on where it is, never on what was drawn before
            self.torch.manual_seed(int(digest([seed, self.steps, self.world.rank])[:15], 16))
            yield self._step(rows, plan[step], loss, needs, step, len(plan))

    @property
    def context(self) -> float:
        """The most tokens that the model takes, prompt and completion."""
        return getattr(self.model.config, "max_position_embeddings", None) or math.inf

    def _check(self, rows: Rows, needs: frozenset[str]) -> None:
        rows.check(needs)
        if len(rows):
            faults.check_fits(rows, self.context, self.forward.vocabulary)
        if "teacher" in needs:
            self._check_teacher()
        if figures_of(needs) != LANGUAGE and not hasattr(self.model, SCALAR) and needs & {"scores", "values"}:
            raise MeritError("the objective teaches a scalar head, and this policy was opened without one")
        if "reference" in needs and not hasattr(self.model, "disable_adapter"):
            raise MeritError(
                "the objective needs a frozen reference, which is the base model under a LoRA adapter; set training.lora"
            )

    def _check_teacher(self) -> None:
        if self.teacher is None:
            raise MeritError(
                "the objective needs a teacher, whose distributions the policy is brought near to; none is given"
            )
        if (theirs := self.teacher.vocabulary) != (mine := self.forward.vocabulary):
            raise MeritError(
                f"teacher and policy have vocabularies of {theirs} and {mine} tokens; distil by traces instead"
            )

    def _step(self, rows: Rows, members: np.ndarray, loss: Loss, needs: frozenset[str], step: int, total: int):
        torch, options = self.torch, self.options
        counts = counts_of(rows, members)
        rate = options.lr * self.course.scale(step, total, options)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.model.train()
        self.ranks.begin()
        if "mismatch" in needs:
            counts["mismatch"] = self.mismatch(rows, members)
        sums: dict[str, float] = {}
        parts = share(rows, members, options.micro_tokens, self.world.rank, self.world.size)
        broken: list[tuple[float, list[int]]] = []  # losses that are no numbers, and their rows
        for number, (micro, weight) in enumerate(parts, 1):
            value, metrics = loss(self.batch(rows, micro, needs, counts))
            if not torch.isfinite(value):
                broken.append((value.item(), micro.tolist()))
                weight = math.nan  # the gradient is none either then, on all ranks, and no step is taken
            self.ranks.backward(value * weight, number == len(parts))
            for name, part in {"loss": value.item(), **metrics}.items():
                sums[name] = sums.get(name, 0.0) + weight * part
        norm = self.ranks.update()
        if not math.isfinite(norm):
            raise faults.NotFinite(faults.told(norm, self.steps + 1, rows, members, mpi.all_say(self.world, broken)))
        self.steps += 1
        figures = self.ranks.total(sums)
        return {"step": self.steps, "lr": rate, "gradient_norm": norm, "tokens": counts["tokens"], **figures}

    def batch(self, rows: Rows, micro: np.ndarray, needs: frozenset[str], counts: dict[str, float]) -> Batch:
        """The micro-batch as an objective sees it."""
        torch = self.torch
        layout = lay(rows, micro, self.forward.packed).to(self.device)
        given: dict[str, Any] = {
            field: self._column(rows, micro, layout, name) for name, field in COLUMNS.items() if name in needs
        }
        if "advantages" in needs:
            given["advantages_BT"] = self._advantages(rows, micro, layout)
        if "reference" in needs:
            with torch.no_grad(), self.model.disable_adapter():
                given["reference_BT"] = self.figures(layout, rows.temperature, ("logprobs",))[0]
        if "teacher" in needs:
            given["divergence"] = partial(self._divergence, layout)
        wanted = figures_of(needs)
        read = dict(zip(wanted, self.figures(layout, rows.temperature, wanted), strict=True))
        given |= {f"{name}_BT": read[name] for name in wanted if name != "logprobs"}
        states = None if rows.states is None else torch.tensor(rows.states[micro], device=self.device)
        present = layout.spread(torch.ones(len(layout.row_N), device=self.device))
        if "mask" in rows.columns:
            present = present * self._column(rows, micro, layout, "mask")
        return Batch(read.get("logprobs"), present, **counts, **given, state_B=states)

    def _column(self, rows: Rows, micro: np.ndarray, layout: Layout, name: str) -> Tensor:
        """One figure a token as (B, T), 0 at padding and where a row has none."""
        column = {"old": rows.logprobs, "anchor": self.anchor}.get(name) or rows.columns.get(COLUMN_OF.get(name, name))
        if column is None:
            raise MeritError(
                f"the objective needs {name} for every token, and these rows have none; build the batch again for it"
            )
        table = np.zeros(layout.shape, np.float32)
        for b, i in enumerate(micro):
            table[b, : len(column[i])] = column[i]
        return self.torch.from_numpy(table).to(self.device)

    def _advantages(self, rows: Rows, micro: np.ndarray, layout: Layout) -> Tensor:
        if "advantages" in rows.columns:
            return self._column(rows, micro, layout, "advantages")
        column = self.torch.tensor(rows.advantages[micro], dtype=self.torch.float32, device=self.device)
        return column[:, None].expand(layout.shape)

    def _divergence(self, layout: Layout, kind: str, temperature: float) -> Tensor:
        """Between teacher and policy at every completion token of the micro-batch that was read last, (B, T) nats."""
        student, teacher = self.forward, self.teacher
        with self.torch.no_grad():
            theirs = teacher.hidden(layout)[layout.before_N]
        apart = head.over_chunks(
            lambda h, t: head.divergence(kind, student.logits(h), teacher.logits(t), temperature),
            student.vocabulary,
            student.kept,
            theirs,
        )
        return layout.spread(apart)

    def score(
        self, rows: Rows, temperature: float = 1.0, exact: bool = True, figure: str = "logprobs"
    ) -> list[np.ndarray]:
        """A figure of each completion token (forward.py), float32 (C,) a row; `exact` is in float32 throughout. No gradient."""
        self.model.eval()
        found: list[np.ndarray] = [np.zeros(0, np.float32)] * len(rows)
        with self.torch.no_grad():
            for micro in micro_batches(rows, np.arange(len(rows)), self.options.micro_tokens):
                layout = lay(rows, micro, self.forward.packed).to(self.device)
                read = self.figures(layout, temperature, (figure,), exact)[0]
                for row, i in zip(read, micro, strict=True):
                    found[i] = row[: len(rows.completions[i])].cpu().numpy()
        return found

    def mismatch(self, rows: Rows, members: np.ndarray) -> float:
        """Mean logp_θ − logp_ref of the step's completions under other rows' prompts, nats a sequence; no gradient."""
        strangers = mismatched(rows, members, self.context)
        total, everyone = 0.0, np.arange(len(strangers))
        with self.torch.no_grad():
            for micro in micro_batches(strangers, everyone, self.options.micro_tokens):
                batch = self.batch(strangers, micro, frozenset({"reference"}), counts_of(strangers, everyone))
                total += float((batch.logprobs_BT - batch.reference_BT).sum())
        return total / max(1, len(strangers))

    def figures(self, layout: Layout, temperature: float, wanted: tuple[str, ...], exact: bool = False) -> Tensor:
        """(K, B, T), see forward.py; by way of the ranks, which may have to fetch weights first."""
        return self.ranks.forward(layout, temperature, wanted, exact)

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


def _forget_activations(causal: torch.nn.Module) -> None:
    """What a layer works out on its way is dropped, and worked out again for its gradient."""
    enable = getattr(causal, "activation_checkpointing_enable", None) or causal.gradient_checkpointing_enable
    try:
        enable({"use_reentrant": False})  # the other way wants inputs that carry a gradient, which an adapter has not
    except ValueError as error:
        raise MeritError(f"training.activation_checkpointing=true: this model cannot do it ({error})") from error


def figures_of(needs: Collection[str]) -> tuple[str, ...]:
    """What the model is read for: log-probabilities, unless a scalar head is taught."""
    scalars = tuple(name for name in ("scores", "values") if name in needs)
    if scalars and "logprobs" not in needs:
        return scalars
    return LANGUAGE + (("entropy",) if "entropy" in needs else ()) + scalars
