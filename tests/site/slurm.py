"""Slurm's commands, as far as Parsl uses them: jobs are real process groups on this machine, whatever their nodes."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

COMMANDS = {
    "sbatch": """
script="$1" id=$$
cp "$script" "$SLURM/$id.sbatch"
told() { sed -n "s/^#SBATCH --$1=//p" "$script"; }
export SLURM_JOB_ID=$id SLURM_JOB_NAME=$(told job-name) SLURM_JOB_NUM_NODES=$(told nodes) SLURM_CPUS_ON_NODE=2
setsid bash "$script" > "$(told output)" 2> "$(told error)" < /dev/null &
echo $! > "$SLURM/$id.leader"
echo "Submitted batch job $id"
""",
    "squeue": """
for file in "$SLURM"/*.leader; do
    kill -0 -- "-$(cat "$file")" 2> /dev/null && echo "$(basename "$file" .leader) R"
done
exit 0
""",
    "scancel": """
for id in "$@"; do kill -TERM -- "-$(cat "$SLURM/$id.leader")" 2> /dev/null; done
exit 0
""",
    "sacct": """
echo "Slurm accounting storage is disabled" >&2
exit 1
""",
    "srun": """
while [ "${1#-}" != "$1" ]; do
    [ "$1" = --ntasks ] && count="$2" && shift
    shift
done
for rank in $(seq 0 $((count - 1))); do SLURM_PROCID=$rank "$@" & done
wait
""",
}


def environment(folder: Path) -> dict[str, str]:
    """What a user's shell on the login node has."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in COMMANDS.items():
        (folder / name).write_text(f"#!/bin/bash\n{text.lstrip()}")
        (folder / name).chmod(0o755)
    return {"SLURM": str(folder), "PATH": f"{folder}:{os.environ['PATH']}"}


def running(folder: Path) -> list[str]:
    """Jobs that have processes still."""
    found = []
    for file in folder.glob("*.leader"):
        with suppress(ProcessLookupError):
            os.killpg(int(file.read_text()), 0)
            found.append(file.stem)
    return found
