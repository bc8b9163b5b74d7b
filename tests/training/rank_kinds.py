"""The entry point of a rank that trains several tasks, one after another: `python -m mpi4py -m tests.training.rank_kinds SPEC`.

SPEC is JSON: a list of what `apps.training.main` is given one of. Starting processes takes longer than training so little.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from apps.platform import mpi


def main(spec: Path) -> None:
    world = mpi.World()
    try:
        tasks = json.loads(spec.read_text())
        if tasks[0]["options"]["training"]["ranks"] > 1:
            world = mpi.join()
        from apps.training import fit

        with mpi.connected(world, "cpu"):
            for given in tasks:
                inputs = {name: [Path(folder) for folder in folders] for name, folders in given["inputs"].items()}
                facts = fit.fit(Path(given["out"]), inputs, given["options"], world)
                if world.rank == 0:
                    (Path(given["out"]) / "facts.json").write_text(json.dumps(facts, default=float))
    except BaseException as error:
        mpi.leave_fault(spec.parent, world, error)
        raise


if __name__ == "__main__":
    main(Path(sys.argv[1]))
