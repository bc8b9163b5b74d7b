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
from workflows.sites import LABELS, Site


class Options(records.Options):
    """What may be set of the local site."""

    cores: int = Field(0, ge=0, description="cores to use; 0 = all that this process may use")
    device: str = Field("auto", description="auto, cpu, cuda, xpu or mps; auto = an accelerator where there is one")
    training_slots: int = Field(0, ge=0, description="training tasks at once; 0 = one a core, 4 at most")
    inference_slots: int = Field(
        0, ge=0, description="inference tasks at once, a model each; 0 = one a core, 4 at most"
    )
    staging: str = Field("", description="folder for copies of models and adapters; default: they are read in place")
    checkpoint_minutes: float = Field(
        10, ge=0, description="between the checkpoints of a training task; 0 = at signals alone"
    )
    margin_s: float = Field(120, ge=0, description="in a batch job: all work is over so many seconds before its end")


def site(options: Options) -> Site:
    cores = options.cores or devices.cores()
    accelerated = options.device not in ("auto", "cpu") or (options.device == "auto" and devices.accelerator_in_sight())
    usual = (
        1 if accelerated else min(4, cores)
    )  # small models gain more from a second process than from a second thread
    training, inference = options.training_slots or usual, options.inference_slots or usual
    weight = {"inference": max(1, cores // inference), "training": max(1, cores // training)}  # cores of a task

    def parsl(folder: Path, memoizer: Any) -> Any:
        from parsl import Config
        from parsl.dataflow.dependency_resolvers import DEEP_DEPENDENCY_RESOLVER

        from workflows.cluster.threads import Cores, Threads

        threads = {"inference": inference, "training": training, "cpu": cores, "network": 8}
        weights = {label: 0 if accelerated else weight.get(label, 0) for label in threads}
        shared = Cores(max([cores, *(threads[label] * weights[label] for label in threads)]), weights)
        return Config(
            executors=[Threads(label, n, shared) for label, n in threads.items()],
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
        inference_threads=weight["inference"],
        inference_slots=inference,
        training_threads=weight["training"],
        training_slots=training,
        launcher=("mpiexec", "-n", "{ranks}"),  # MPICH's, which comes with the extra `mpi`
        checkpoint_minutes=options.checkpoint_minutes,
        staging=Path(options.staging).absolute() if options.staging else None,
        capacity=1 if accelerated else cores,
        unit="devices" if accelerated else "cores",
        holds={"inference": 1, "training": 1} if accelerated else {},
        ordered=LABELS,
        margin_s=options.margin_s,
    )
