"""What staging takes beside plain `cp`, and the floor: every rank's bytes over the rate at which the disk is written.

    python tests/benchmarks/staging.py [--megabytes 500] [--folder FOLDER] [--repeats 3]

The ranks are on one machine here, each with a place of its own on the one disk, so they share what nodes have to themselves.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BLOCK = 32 << 20  # bytes


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--folder", default=None, help="on the disk that is measured")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        (folder / "model").mkdir()
        rate = best(given.repeats, lambda: written(folder / "model" / "weights", given.megabytes))
        print(f"{given.megabytes} MB, load {os.getloadavg()[0]:.0f}; seconds, the best of {given.repeats}")
        print(f"{'written from memory':<24}{rate:>6.2f}")
        print(f"{'cp':<24}{best(given.repeats, lambda: plain(folder)):>6.2f}")
        for ranks in (1, 2, 4):
            took = best(given.repeats, lambda ranks=ranks: staged(folder, ranks))
            print(f"{f'staging, {ranks} ranks':<24}{took:>6.2f}   floor {ranks * rate:.2f}")


def best(repeats: int, measure) -> float:
    return min(measure() for _ in range(repeats))


def written(file: Path, megabytes: int) -> float:
    """Bytes that do not compress, written as fast as the disk, or its cache, takes them."""
    block, left = os.urandom(BLOCK), megabytes * 10**6
    started = time.perf_counter()
    with open(file, "wb", buffering=0) as opened:
        while left:
            left -= opened.write(block[:left])
    return time.perf_counter() - started


def plain(folder: Path) -> float:
    started = time.perf_counter()
    subprocess.run(["cp", "-r", "--reflink=never", folder / "model", folder / "copy"], check=True)
    took = time.perf_counter() - started
    shutil.rmtree(folder / "copy")
    return took


def staged(folder: Path, ranks: int) -> float:
    """The slowest rank's, without the start of its process."""
    python = [sys.executable, *(("-m", "mpi4py") if ranks > 1 else ())]
    launcher = [str(Path(sys.executable).parent / "mpiexec"), "-n", str(ranks)] if ranks > 1 else []
    words = ["-m", "apps.platform.staging", folder / "model", folder / "nodes" / "{rank}", "--out", folder / "out.json"]
    subprocess.run([*launcher, *python, *words], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(folder / "nodes")
    return max(verdict["seconds"] for verdict in json.loads((folder / "out.json").read_text()))


if __name__ == "__main__":
    main()
