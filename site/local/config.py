"""This machine alone: Parsl's threads in the driver, each handing its task to a warm process where it needs one.

A model with adapters is mutable, so one model serves one task at a time: a single inference slot keeps it in the driver,
several have a process and a model each. On an accelerator there is one slot of either kind.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from apps import records
from apps.platform import devices
from workflows.sites import Site


class Options(records.Options):
    """What may be set of the local site."""

    cores: int = Field(0, ge=0, description="cores to use; 0 = all that this process may use")
    device: str = Field("auto", description="auto, cpu, cuda, xpu or mps; auto = an accelerator where there is one")
    training_slots: int = Field(0, ge=0, description="training tasks at once; 0 = one a core, 4 at most")
    inference_slots: int = Field(
        0, ge=0, description="inference tasks at once, a model each; 0 = one a core, 4 at most"
    )
    checkpoint_minutes: float = Field(
        10, ge=0, description="between the checkpoints of a training task; 0 = at signals alone"
    )


def site(options: Options) -> Site:
    cores = options.cores or devices.cores()
    accelerated = options.device not in ("auto", "cpu") or (options.device == "auto" and devices.accelerator_in_sight())
    usual = (
        1 if accelerated else min(4, cores)
    )  # small models gain more from a second process than from a second thread
    training, inference = options.training_slots or usual, options.inference_slots or usual

    def parsl(folder: Path, memoizer: Any) -> Any:
        from parsl import Config, ThreadPoolExecutor
        from parsl.dataflow.dependency_resolvers import DEEP_DEPENDENCY_RESOLVER

        threads = {"inference": inference, "training": training, "cpu": cores, "network": 8}
        return Config(
            executors=[ThreadPoolExecutor(label=label, max_threads=n) for label, n in threads.items()],
            memoizer=memoizer,
            dependency_resolver=DEEP_DEPENDENCY_RESOLVER,  # stages are given lists of futures
            run_dir=str(folder),
            initialize_logging=False,
            strategy="none",
            retries=0,  # the same task on the same machine fails again
            usage_tracking=0,
            exit_mode="cleanup",
        )

    return Site(
        name="local",
        parsl=parsl,
        device=options.device,
        inference_threads=max(1, cores // inference),
        inference_slots=inference,
        training_threads=max(1, cores // training),
        training_slots=training,
        launcher=("mpiexec", "-n", "{ranks}"),  # MPICH's, which comes with the extra `mpi`
        checkpoint_minutes=options.checkpoint_minutes,
    )
