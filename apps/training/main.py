"""The entry point of a rank: `python -m apps.training.main SPEC`.

SPEC is a JSON or YAML file that says what the stage `train` is given: `out` (a folder), `inputs` (name: folders) and
`options`. It is read by every rank; rank 0 writes the result into `out`. With `training.ranks` > 1 it is started by MPI,

    mpiexec -n 4 python -m mpi4py -m apps.training.main SPEC

on one node or on many that see the same files. With one rank it runs by itself and does without MPI. A fault is left in
`fault.json` beside SPEC. Not the command that users give: that is `workflows/run.py`, whose stage `train` starts this one.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from apps.platform import devices, mpi, nearby, room
from apps.records import MeritError
from apps.training.options import Options

FACTS = "facts.json"


def main(spec: Path) -> None:
    world = mpi.World()
    try:
        given = read(spec)
        ranks = Options(**given["options"]["training"]).ranks
        if ranks > 1:
            world = mpi.join()
            if world.local_rank == 0:
                room.make()
            mpi.all_say(world, None)  # before anybody takes a device
        if world.size != ranks:
            raise MeritError(f"{spec}: training.ranks={ranks}, but {world.size} were started")
        run(world, given)
    except BaseException as error:
        mpi.leave_fault(spec.parent, world, error)
        raise  # mpi4py then ends the other ranks


def read(spec: Path) -> Mapping[str, Any]:
    """What SPEC says; MeritError where it lacks something."""
    # not one for both: YAML takes the 1e-05 of JSON for a text
    given = (json.loads if spec.suffix == ".json" else yaml.safe_load)(spec.read_text(encoding="utf-8"))
    missing = {"out", "inputs", "options"} - set(given if isinstance(given, dict) else ())
    if missing:
        raise MeritError(
            f"{spec}: a mapping with out, inputs and options is expected; it lacks {', '.join(sorted(missing))}"
        )
    return given


def run(world: mpi.World, given: Mapping[str, Any]) -> None:
    """One rank's part, from the first meeting of all ranks to the last."""
    from apps.training import fit

    options = nearby.models(given["options"])
    device = devices.of_rank(options.get("device", "cpu"), world.local_rank)
    inputs = {name: [Path(folder) for folder in folders] for name, folders in given["inputs"].items()}
    with mpi.connected(world, device):
        facts = fit.fit(Path(given["out"]), inputs, {**options, "device": device}, world)
        if world.rank == 0:
            (Path(given["out"]) / FACTS).write_text(json.dumps(facts, default=float) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
