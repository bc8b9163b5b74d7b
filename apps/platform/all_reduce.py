"""A small all-reduce among all devices, whose sum is known: `python -m mpi4py -m apps.platform.all_reduce DEVICE`.

Every rank takes its device and meets the others as training ranks do (mpi.connected), on the backend of the platform.
A wrong sum is a MeritError, which ends all ranks; a hang is for whoever started them to end. Without MPI, one rank alone.
"""

from __future__ import annotations

import sys
import time

from apps.platform import devices, mpi, probe
from apps.records import MeritError

SIZE = 1 << 20  # numbers, float32: whole ones, whose sums are exact below 2²⁴
REPEATS = 3


def main(wanted: str) -> None:
    world = mpi.join() if "mpi4py" in sys.modules else mpi.World()
    device = devices.of_rank(devices.pick(wanted), world.local_rank)
    with mpi.connected(world, device):
        seconds = summed(world, device)
        if world.rank == 0:
            gigabits = SIZE * 4 * 8 / seconds / 1e9
            probe.say({"backend": devices.backend(device), "ranks": world.size, "gbit_s": round(gigabits, 2)})


def summed(world: mpi.World, device: str) -> float:
    """Seconds of the fastest of some all-reduces, each checked."""
    import torch
    from torch import distributed

    pattern = torch.arange(SIZE, dtype=torch.float32, device=device) % 5
    expected = pattern * world.size + sum(rank % 7 for rank in range(world.size))
    seconds = []
    for _ in range(REPEATS):
        numbers = pattern + world.rank % 7
        started = time.perf_counter()
        distributed.all_reduce(numbers)
        numbers[0].item()  # waits for the device
        seconds.append(time.perf_counter() - started)
        check(world, numbers, expected)
    return min(seconds)


def check(world: mpi.World, found, expected) -> None:
    """MeritError where a sum is not what it must be; nothing is rounded, so not a bit may differ."""
    import torch

    if not torch.equal(found, expected):
        wrong = int((found != expected).sum())
        raise MeritError(
            f"rank {world.rank} of {world.size}: {wrong} of {found.numel()} sums of the all-reduce are wrong"
        )


if __name__ == "__main__":
    main(sys.argv[1])
