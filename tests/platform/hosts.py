"""A launcher over hosts that are names on this machine, some of which are not well: -n N --ppn P --hostfile F COMMAND…

MPICH's Hydra starts the processes, each named host a node of its own. HOSTS in the environment says, as JSON, what is wrong with
which: "dead" (nothing starts and nothing ends, as where a node does not answer), "refused" (the launch fails at once), "hangs"
(its own process never ends), "dies" (it is killed), "deaf" (no all-reduce comes about with another host), or a mapping of environment variables.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

HOSTS, RECORD = "MERIT_TEST_HOSTS", "MERIT_TEST_RECORD"
WORDS = (
    sys.executable,
    __file__,
    "-n",
    "{ranks}",
    "--ppn",
    "{ppn}",
    "--hostfile",
    "{hostfile}",
)  # of a site's launcher


def environment(ailments: Mapping[str, object], record: Path) -> dict[str, str]:
    return {HOSTS: json.dumps(ailments), RECORD: str(record), "OMP_NUM_THREADS": "1"}


def main(words: list[str]) -> None:
    ranks, ppn, hosts, command = int(words[1]), words[3], Path(words[5]).read_text().split(), words[6:]
    assert ranks == len(hosts) * int(ppn)
    with open(os.environ[RECORD], "a") as record:
        record.write(json.dumps(hosts) + "\n")
    ailments = json.loads(os.environ[HOSTS])
    ill = {host: ailments.get(host, {}) for host in hosts}
    if "refused" in ill.values():
        sys.exit("a host was not reached")
    if "dead" in ill.values():
        time.sleep(1000)
    if "deaf" in ill.values() and len(hosts) > 1 and "apps.platform.all_reduce" in command:
        sys.exit("no way to the others")
    parts = [part for host in hosts for part in (":", "-n", ppn, *started(ill[host], command))]
    hydra = str(Path(sys.executable).parent / "mpiexec")
    os.execv(hydra, [hydra, "-launcher", "fork", "-hosts", ",".join(hosts), *parts[1:]])


def started(ailment: object, command: list[str]) -> list[str]:
    if ailment == "hangs":
        return ["sleep", "1000"]
    if ailment == "dies":
        return ["sh", "-c", "sleep 0.3; kill -9 $$"]
    variables = ailment if isinstance(ailment, dict) else {}
    return ["env", *(f"{name}={value}" for name, value in variables.items()), *command]


if __name__ == "__main__":
    main(sys.argv[1:])
