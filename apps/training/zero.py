"""DeepSpeed's ZeRO (arXiv 1910.02054): ranks divide optimiser state (1), gradients (2) and weights (3) among themselves.

The optimiser stays torch's AdamW and the weights float32, so that an adapter comes out as from one process, within
rounding. DeepSpeed averages gradients over ranks; the parts are to be summed, so each is multiplied by their number first.
No operator of DeepSpeed's is compiled. Its version 0.16 or later.

Left out: making the base model in parts (every rank opens it whole before stage 3 divides it), and off-load to disks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from apps.records import MeritError
from apps.training.ranks import Alone, Moments, add_figures

if TYPE_CHECKING:
    from torch import Tensor, nn

    from apps.training.options import Options

KEYS = ("exp_avg", "exp_avg_sq")
INSTALL = "pip install -c constraints.txt -e '.[deepspeed]'"


class Zero(Alone):
    """A stage of ZeRO. One process can do it too, for off-load. Needs a default process group."""

    def __init__(self, model: nn.Module, optimiser: Any, options: Options, world: Any, forward: Any) -> None:
        super().__init__(model, optimiser, options, world, forward)
        deepspeed = _deepspeed(next(model.parameters()).device.type)
        self.deepspeed, self.stage = deepspeed, int(options.parallel[-1])
        count = sum(p.numel() for p in self.parameters.values())
        hidden = getattr(model.config, "hidden_size", 1024)
        self.engine, self.divided, *_ = deepspeed.initialize(
            model=_as_module(model, forward),
            optimizer=optimiser,
            config=settings(options, count, hidden),
            dist_init_required=False,
        )
        self.forward = self.engine

    def begin(self) -> None:
        """Its engine forgets gradients at the end of a step."""

    def backward(self, part: Tensor, last: bool) -> None:
        self.engine.set_gradient_accumulation_boundary(last)
        self.engine.backward(part * self.world.size)

    def update(self) -> float:
        self.engine.step()
        return float(self.engine.get_global_grad_norm())

    def total(self, sums: Mapping[str, float]) -> dict[str, float]:
        return add_figures(sums, self.engine.device)

    def moments(self) -> Moments:
        from deepspeed.utils import safe_get_full_optimizer_state as whole

        state = self.optimiser.state.get(self._flat()[0], {})
        if not state:
            return {}
        step = state["step"]
        kept = {name: {key: whole(p, key) for key in KEYS} for name, p in self.parameters.items()}
        return {name: {**pair, "step": step.clone()} for name, pair in kept.items()}

    def set_moments(self, moments: Moments) -> None:
        from deepspeed.utils import safe_set_full_optimizer_state as put
        from torch import zeros_like

        if not moments:
            return
        step = max((kept["step"] for kept in moments.values()), key=float)
        for flat in self._flat():
            self.optimiser.state[flat] = {**{key: zeros_like(flat) for key in KEYS}, "step": step.clone()}
        if self.stage < 3:
            self.divided._lazy_init_hp_params_optimizer_state()  # else it would do so only after a first step
        for name, kept in moments.items():
            for key in KEYS:
                put(self.parameters[name], kept[key].to(self.engine.device), key)

    @contextmanager
    def gathered(self) -> Iterator[None]:
        with self.deepspeed.zero.GatheredParameters(list(self.parameters.values()), enabled=self.stage == 3):
            yield

    def _flat(self) -> list[Tensor]:
        """This rank's parts of the weights, in float32: what AdamW steps."""
        return (
            self.divided.fp32_partitioned_groups_flat
            if self.stage == 3
            else self.divided.single_partition_of_fp32_groups
        )


def settings(options: Options, parameters: int, hidden: int) -> dict[str, Any]:
    """DeepSpeed's configuration for training so many `parameters`."""
    stage = int(options.parallel[-1])
    even = parameters + parameters % 2  # it refuses odd ones, and a scalar head has one number that a matrix has not
    bucket = min(500_000_000, max(2, even))  # its default, 2 GB of memory, only where there is so much to send
    zero: dict[str, Any] = {"stage": stage, "reduce_bucket_size": bucket, "allgather_bucket_size": bucket}
    zero["overlap_comm"] = False
    if stage == 3:
        zero["stage3_param_persistence_threshold"] = 10 * hidden  # biases and norms stay whole, as Hugging Face has it
    if options.offload:
        zero["offload_optimizer"] = {"device": "cpu"}
        if stage == 3:
            zero["offload_param"] = {"device": "cpu"}
    return {
        "train_micro_batch_size_per_gpu": 1,  # not used: the trainer says itself where a step ends
        "gradient_accumulation_steps": 1,
        "gradient_clipping": options.clip,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,  # that one is compiled
        "steps_per_print": 1 << 60,
        "zero_optimization": zero,
    }


def _deepspeed(kind: str) -> Any:
    """The library, without the operators that it would compile: on a CPU that takes a minute, and a stale lock hangs."""
    if kind == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    try:
        import deepspeed
    except ImportError as error:
        raise MeritError(f"training.parallel=zero1, zero2 and zero3 need DeepSpeed ({error}); {INSTALL}") from error
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend=_backend(), auto_mpi_discovery=False, verbose=False)
    return deepspeed


def _backend() -> str:
    from torch import distributed

    return distributed.get_backend()


def _as_module(model: nn.Module, forward: Any) -> nn.Module:
    """Stage 3 gathers weights as modules are called, from the outermost one on; `forward` calls the model's parts."""
    from torch import nn

    class Outermost(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *given: Any) -> Tensor:
            return forward(*given)

    return Outermost()
