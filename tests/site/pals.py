"""Aurora's mpiexec (PALS), as far as Merit uses it: its options and no others, over hosts that are names on this machine.

MPICH's Hydra starts the processes, with the launcher `fork`: each named host counts as a node of its own. What was asked is
appended to the file $PALS_RECORD, a line of JSON for each call. What Parsl's launcher starts, worker pools, finds its host's name where
that can be had (`unshare`, as root); ranks do not, as nothing would tell them their addresses.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

HYDRA = Path(sys.executable).parent / "mpiexec"
VALUED = {"-n", "--ppn", "-ppn", "--hosts", "-hosts", "--hostfile", "--cpu-bind", "--env"}
PLAIN = {"--envall", "--line-buffer", "--no-vni"}
NAMED = 'exec unshare --uts /bin/sh -c "hostname \\"$PMI_HOSTNAME\\"; exec \\"\\$@\\"" pals "$@"'
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
    if down := set(hosts) & set(_down()):
        sys.exit(f"mpiexec: {', '.join(sorted(down))}: no route to host")
    placed = ["-launcher", "fork", "-hosts", ",".join(hosts), "-n", options["n"], "-ppn", options["ppn"]]
    pools = named() and any("cmd_" in word for word in command)  # the script of Parsl's launcher
    rank = RANK.replace('exec "$@"', NAMED) if pools else RANK
    os.execv(HYDRA, [str(HYDRA), *placed, "/bin/sh", "-c", rank, "pals", *command])


def _down() -> list[str]:
    """Hosts on which nothing starts: those that the file $PALS_DOWN names, if it is there."""
    file = Path(os.environ.get("PALS_DOWN", "/nowhere"))
    return file.read_text().split() if file.is_file() else []


def named() -> bool:
    """Whether a process here can have a host's name for itself."""
    return subprocess.run(["unshare", "--uts", "hostname", "x"], capture_output=True).returncode == 0


if __name__ == "__main__":
    main(sys.argv[1:])
