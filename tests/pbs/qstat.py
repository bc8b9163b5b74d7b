"""`qstat` of the stand-in: `qstat [-x] -f -F json ID…`, and a line a job without -f.

Prints JSON as qstat 23.06 does, with its faults: what C's strtod takes for a number is printed bare, `inf` and `.5` too,
and a backslash that escapes nothing stays as it is.
"""

from __future__ import annotations

import getopt
import re
import sys
import time
from typing import Any

import server

TIMES = ("ctime", "qtime", "mtime", "stime")
NUMBER = re.compile(r"\s*[+-]?(0[xX][0-9a-fA-F]+|inf(inity)?|nan|(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?)\s*", re.I)


def main(arguments: list[str]) -> None:
    try:
        given, ids = getopt.getopt(arguments, "fxF:u:")
    except getopt.GetoptError as error:
        server.fail("qstat", str(error), 2)
    asked = dict(given)
    found, status = {}, 0
    for job in [server.full_id(word) for word in ids] or list(server.jobs()):
        attributes = server.read(job)
        if attributes is None:
            print(f"qstat: Unknown Job Id {job}", file=sys.stderr)
            status = server.UNKNOWN
        elif attributes["job_state"] in server.OVER and "-x" not in asked:
            if ids:
                told = "Job has finished, use -x or -H to obtain historical job information"
                print(f"qstat: {job} {told}", file=sys.stderr)
                status = server.FINISHED
        else:
            found[job] = attributes
    if "-f" in asked and asked.get("-F") == "json":
        lines = ["{", f'    "timestamp":{int(time.time())},', '    "pbs_version":"stand-in",', '    "Jobs":{']
        sys.stdout.write(
            "\n".join(lines) + "\n" + ",\n".join(shown(job, found[job], 8) for job in found) + "\n    }\n}\n"
        )
    elif found:
        print(
            "Job id            Name             Time Use S Queue\n----------------  ---------------- -------- - -----"
        )
        for job, a in found.items():
            print(f"{job:<17} {a['Job_Name'][:16]:<16} 00:00:00 {a['job_state']} {a['queue']}")
    sys.exit(status)


def shown(name: str, value: Any, indent: int) -> str:
    """An attribute as a line, or an object over several."""
    space = " " * indent
    if isinstance(value, dict):
        inside = ",\n".join(
            shown(key, part, indent + 4) for key, part in value.items() if part != "" or name == "Variable_List"
        )
        return f'{space}"{name}":{{\n{inside}\n{space}}}'
    text = time.ctime(value) if name in TIMES else str(value)
    bare = NUMBER.fullmatch(text) and (not text.startswith("0") or text.strip("0") in ("", "."))
    return f'{space}"{name}":{text}' if bare else f'{space}"{name}":"{escaped(text)}"'


def escaped(text: str) -> str:
    """A quotation mark gets a backslash; a backslash stays."""
    for plain, letter in (("\n", "n"), ("\t", "t"), ("\r", "r")):
        text = text.replace(plain, f"\\{letter}")
    return re.sub(r'(?<!\\)"', r"\"", text)


if __name__ == "__main__":
    main(sys.argv[1:])
