"""Every seeded mutation of an objective or an advantage makes a test fail: of a sign, mask, denominator, ddof, clip side, group.

New leaves are found by listing the folders: one that no test compares with anything has survivors, and fails here.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from apps import leaf
from tests.training.mutants import mutants

ROOT = Path(__file__).parents[2]
FOLDERS = ("training/objectives", "training/advantages")
EQUIVALENT = {  # (file, what the mutant makes of what) -> why it is the same function
    ("pairs.py", "margin_P.detach()  →  margin_P"): "only numbers are made of it, which carry no gradient",
    ("scores.py", "scores.detach()  →  scores"): "it is compared with 0, and a comparison carries no gradient",
    (
        "correction.py",
        "own(log_weight_BT.exp(), batch)  →  log_weight_BT.exp()",
    ): "it is 1 where nothing is own, and what it is compared with is 1 or more",
}


@pytest.mark.slow
@pytest.mark.parametrize("folder", FOLDERS)
def test_every_mutant_is_noticed(folder, tmp_path):
    command = [sys.executable, "-m", "tests.training.mutation_run", folder, str(tmp_path / "found.json")]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert ended.returncode in (0, 5), ended.stdout[-3000:]  # 5: pytest itself ran no test
    found = json.loads((tmp_path / "found.json").read_text())
    listed = {mutant.file for file in sorted((ROOT / "apps" / folder).glob("*.py")) for mutant in mutants(file)}
    assert {entry["file"] for entry in found} == listed
    survivors = [entry["mutant"] for entry in found if not entry["noticed"]]
    told = {entry: why for (file, change), why in EQUIVALENT.items() for entry in survivors if _is(entry, file, change)}
    left = [entry for entry in survivors if entry not in told]
    print(f"{folder}: {len(found)} mutants, {len(found) - len(survivors)} noticed, {len(told)} equivalent")
    assert not left, "no test notices\n" + "\n".join(left)


def _is(entry: str, file: str, change: str) -> bool:
    return entry.startswith(f"{file}:") and entry.partition(": ")[2] == change


def changes(source: str) -> list[tuple[str, str]]:
    file = Path(os.environ.get("TMPDIR", "/tmp")) / f"mutants_{os.getpid()}.py"
    file.write_text(source)
    try:
        return [(mutant.kind, ast.unparse(mutant.tree.body[0].body[-1])) for mutant in mutants(file)]
    finally:
        file.unlink()


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("-x", {("sign", "return x")}),
        ("a - b", {("sign", "return a + b")}),
        ("n - 1", {("ddof", "return n")}),
        ("v.std(ddof=1)", {("ddof", "return v.std(ddof=0)")}),
        ("own(x, batch)", {("mask", "return x")}),
        ("x / batch.tokens", {("denominator", "return x"), ("denominator", "return x / batch.sequences")}),
        ("x.clamp(min=0)", {("clip", "return x"), ("clip", "return x.clamp(max=0)")}),
        ("x.clamp(a, b)", {("clip", "return x.clamp(min=a)"), ("clip", "return x.clamp(max=b)")}),
        ("x.minimum(y)", {("clip", "return x.maximum(y)")}),
        ("rows[0::2]", {("half", "return rows[1::2]")}),
        ("f((t.task, t.agent))", {("group", "return f((t.agent,))"), ("group", "return f((t.task,))")}),
        ("f'{a - b}'", set()),
        ("float(x.detach())", set()),
    ],
)
def test_what_a_mutant_is(expression, expected):
    assert set(changes(f"def f():\n    return {expression}")) == expected


def test_every_leaf_that_computes_something_has_mutants():
    """Else a folder of leaves could pass by having none. Those that only call others are judged with what they call."""
    none = {
        name
        for folder in FOLDERS
        for name in leaf.names(folder)
        if not list(mutants(ROOT / "apps" / folder / f"{name}.py"))
    }
    assert none == set()
