"""One attempt at a task, where it was sent: its inputs are looked at first, and memory that does not suffice is met here.

Not here: what else a failed attempt is tried again for, and where (workflows/driver/retries.py).
"""

from __future__ import annotations

import gc
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from apps import artifacts, dormant
from apps.platform import faults, processes, smaller
from apps.records import Artifact

Outcome = tuple[dict[str, Any], dict[str, Any]]  # a stage's facts, and what they cost


@contextmanager
def at_hand(given: Iterable[Artifact], apart: bool) -> Iterator[dict[Artifact, Path]]:
    """The folders of artifacts. Dormant ones are woken or, `apart`, unpacked into a folder of this node that goes after the block."""
    with tempfile.TemporaryDirectory(prefix="merit-") if apart else nullcontext() as room:
        yield {a: dormant.copied(Path(a.path), Path(room)) if room else dormant.folder(Path(a.path)) for a in given}


def check_inputs(root: str, given: Mapping[Artifact, Path], error: Exception | None = None) -> None:
    """LostInput for what is gone, or is not as it was written; a damaged artifact is set aside, so that it is made again.

    Sizes are compared for every task, contents at first use in this process, and anew after an `error` that damage may explain.
    What was packed meanwhile is lost then too: the next attempt wakes it.
    """
    anew = error is not None and faults.kind(error) == faults.OWN
    read = anew or error is None
    lost = {a: reason for a, place in given.items() if (reason := artifacts.check(place, contents=read, anew=anew))}
    for artifact in lost:
        artifacts.set_aside(root, Path(artifact.path))
    if lost:
        told = "; ".join(f"{artifact.stage} {artifact.key}: {reason}" for artifact, reason in lost.items())
        raise faults.LostInput(f"an input cannot be used: {told}", list(lost)) from error


def within_memory(
    carry_out: Callable[[dict[str, Any]], Outcome], out: Path, options: Mapping[str, Any], times: int
) -> Outcome:
    """What `carry_out(options)` gives, with batches halved until they fit; its facts say so. They begin `times` halved."""
    short = ""
    while True:
        chosen, told = smaller.halved(options, times)
        try:
            facts, cost = carry_out(chosen)
        except Exception as error:
            if faults.kind(error) != faults.MEMORY or not smaller.can_be(options, times + 1):
                raise
            short = str(error).strip().partition("\n")[0]
        else:
            return ({**facts, "smaller": {**told, "because": short}} if told else facts), cost
        times += 1
        _clear(out)  # after the exception, whose frames hold what filled the memory


def in_process(pool: str, machine: Mapping[str, Any], function: Callable[..., Outcome], *call: Any) -> Outcome:
    """In a warm process beside this one, that is killed when its time is up. When this one is to end, that one may save."""
    grace_s = machine.get("grace_s", 0)
    limits = {"timeout_s": machine.get("timeout_s"), "until": machine.get("until"), "grace_s": grace_s}
    with processes.passing_on(grace_s):
        try:
            return processes.run(pool, function, *call, threads=machine.get("threads", 1), **limits)
        except SystemExit as end:  # Parsl's worker would end with it, and seem to be lost
            raise RuntimeError(f"the task ended its own process: SystemExit({end.code!r})") from end
        except Exception as error:
            if faults.kind(error) == faults.MEMORY:
                processes.retire(pool)
            raise


def _clear(out: Path) -> None:
    """Removes the files that a failed attempt left, and gives its memory back."""
    for path in out.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    gc.collect()
    if torch := sys.modules.get("torch"):
        for kind in ("cuda", "xpu"):
            device = getattr(torch, kind, None)
            if device is not None and device.is_available():
                device.empty_cache()
