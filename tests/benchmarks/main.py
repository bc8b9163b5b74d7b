"""All benchmarks: `make bench`, or `python tests/benchmarks/main.py [NAME …]`.

Each runs in a process of its own. Prints a table as Markdown and writes `runs/benchmarks.json`: a list of name, value, unit,
baseline, ratio and a remark. The baseline is TRL where it is installed (the extra `bench`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.benchmarks.figures import Figure, table

ROOT = Path(__file__).parents[2]
NAMES = ("grpo_step", "fine_tuning", "head_memory", "gpu", "credit_scale", "driver", "gold_solutions")
OUT = ROOT / "runs" / "benchmarks.json"
CALL = (
    "import json, sys\n"
    "from tests.benchmarks import {name}\n"
    "for figure in {name}.figures():\n"
    "    print('FIGURE', json.dumps(figure.row()), flush=True)\n"
)


def main(names: tuple[str, ...]) -> None:
    found: list[Figure] = []
    for name in names:
        print(f"{name} …", file=sys.stderr, flush=True)
        found += measured(name)
        OUT.parent.mkdir(exist_ok=True)  # after each, so that a run that is stopped leaves what it has
        OUT.write_text(json.dumps([figure.row() for figure in found], indent=1) + "\n", encoding="utf-8")
    print(table(found))


def measured(name: str) -> list[Figure]:
    """The figures of one benchmark; one that says why, where it failed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CALL.format(name=name)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=ROOT,
    )
    rows = [json.loads(line[7:]) for line in ended.stdout.splitlines() if line.startswith("FIGURE ")]
    found = [Figure(**{k: v for k, v in row.items() if k != "ratio"}) for row in rows]
    if ended.returncode:
        sys.stderr.write(ended.stderr[-4000:])
        found.append(Figure(name, None, "", remark=f"failed: {ended.stderr.strip().splitlines()[-1][:200]}"))
    return found


if __name__ == "__main__":
    main(tuple(sys.argv[1:]) or NAMES)
