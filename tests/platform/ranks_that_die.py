"""A module of ranks of the tests: SPEC says, as JSON, what becomes of which, and they meet no further.

"killed" by SIGKILL; "lost": a connection to another is closed; "ill": its own device is gone. The others wait to be ended.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from apps.platform import mpi

SAYS = {
    "lost": ConnectionResetError(104, "Connection reset by peer"),
    "ill": RuntimeError("Native API failed: UR_RESULT_ERROR_DEVICE_LOST"),
}


def main(spec: Path) -> None:
    world = mpi.join()
    ends = dict(enumerate(json.loads(spec.read_text())))[world.rank]
    mpi.all_say(world, None)
    if ends == "killed":
        while any(end == "lost" for end in json.loads(spec.read_text())) and not (spec.parent / mpi.FAULT).exists():
            time.sleep(0.01)  # so that it is the launcher's word against that of another rank
        os.kill(os.getpid(), signal.SIGKILL)
    if ends == "lost":
        mpi.leave_fault(spec.parent, world, SAYS[ends])
    if ends == "ill":
        mpi.leave_fault(spec.parent, world, SAYS[ends])
        raise SAYS[ends]
    time.sleep(120)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
