"""Aurora's mpiexec (PALS), as far as Merit uses it: its options and no others, over hosts that are names on this machine.

MPICH's Hydra starts the processes, with the launcher `fork`: each named host counts as a node of its own. What was asked is
appended to the file $PALS_RECORD, a line of JSON for each call.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

HYDRA = Path(sys.executable).parent / "mpiexec"
VALUED = {"-n", "--ppn", "-ppn", "--hosts", "-hosts", "--hostfile", "--cpu-bind", "--env"}
PLAIN = {"--envall", "--line-buffer", "--no-vni"}
RANK = 'export PALS_RANKID="$PMI_RANK" PALS_LOCAL_RANKID="$MPI_LOCALRANKID"; exec "$@"'


def parsed(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """Its options, and the command that they are followed by. SystemExit for an option that PALS does not know."""
    options: dict[str, str] = {}
    while words and words[0].startswith("-"):
        name, equals, value = words.pop(0).partition("=")
        if name not in VALUED | PLAIN:
            sys.exit(f"mpiexec: unrecognized option '{name}'")
        options[name.lstrip("-")] = (value if equals else words.pop(0)) if name in VALUED else ""
    return options, words


def main(words: list[str]) -> None:
    options, command = parsed(list(words))
    hosts = Path(options["hostfile"]).read_text().split() if "hostfile" in options else options["hosts"].split(",")
    groups = options.get("cpu-bind", "none").removeprefix("list:").split(":")
    if options.get("cpu-bind", "none") != "none" and len(groups) < int(options["ppn"]):
        sys.exit(f"mpiexec: --cpu-bind names {len(groups)} groups for {options['ppn']} ranks a node")
    if record := os.environ.get("PALS_RECORD"):
        with open(record, "a", encoding="utf-8") as file:
            file.write(json.dumps({"words": words, "hosts": hosts}) + "\n")
    placed = ["-launcher", "fork", "-hosts", ",".join(hosts), "-n", options["n"], "-ppn", options["ppn"]]
    os.execv(HYDRA, [str(HYDRA), *placed, "/bin/sh", "-c", RANK, "pals", *command])


if __name__ == "__main__":
    main(sys.argv[1:])
