"""Runs the tests of a folder's leaves against every mutant of its files: `python -m tests.training.mutation_run FOLDER OUT [FILE …]`.

Tests are collected once. For each mutant a forked process takes the changed source into the modules as they are, those that
import from it included, and runs the tests of the leaf until one fails. OUT is a JSON file: a list of file, mutant, and the
test that noticed it ("" for a survivor). Tests that need a real model take no part: what they train on depends on too much.
"""

from __future__ import annotations

import ast
import json
import os
import re
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import hypothesis
import pytest

from apps import leaf
from tests.training.mutants import Mutant, mutants

ROOT = Path(__file__).parents[2]
EXAMPLES = 8  # of a law, at most: a mutant that is wrong at one place in a hundred is no seeded one
SECONDS = 120  # of the processor: a mutant that takes longer hangs, which is noticed too
REAL = {"tiny_model", "shards"}  # fixtures with a real model


class Runner:
    """A plugin of pytest that has a loop of its own."""

    def __init__(self, folder: str, out: Path, only: list[str]) -> None:
        self.folder, self.out, self.only, self.found = folder, out, only, []
        self.leaves = set(leaf.names(folder))

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = [item for item in session.items if not REAL & set(getattr(item, "fixturenames", ()))]
        for file in sorted((ROOT / "apps" / self.folder).glob("*.py")):
            if self.only and file.name not in self.only:
                continue
            judges = self._judges(file.stem, items)
            found = list(mutants(file))
            same = Mutant(file.name, 0, "", "", "", ast.parse(file.read_text(encoding="utf-8")))
            if found and (noticed := _forked(lambda m=same, j=judges: self._noticed_by(m, j))):
                raise RuntimeError(f"{file.name}: {noticed} fails without a mutant")
            for mutant in found:
                noticed = _forked(lambda m=mutant, j=judges: self._noticed_by(m, j))
                self.found.append({"file": file.name, "mutant": str(mutant), "kind": mutant.kind, "noticed": noticed})
            self.out.write_text(json.dumps(self.found, indent=1) + "\n", encoding="utf-8")
        return True

    def _judges(self, name: str, items: list[pytest.Item]) -> list[pytest.Item]:
        """The tests of a leaf: those that are given it, and those whose file imports it. Of a shared file also all that compare
        a leaf with a formula.
        """
        imports = re.compile(rf"import [^\n]*\b{name}\b")
        shared = name not in self.leaves
        found = [
            item
            for item in items
            if name in (given := self._given(item))
            or (shared and not _slowly(item))
            or (not given and (name in item.name or imports.search(item.path.read_text("utf-8"))))
        ]
        return sorted(found, key=_slowly)

    def _given(self, item: pytest.Item) -> set[str]:
        """The leaves that are among a test's parameters, as names or modules."""
        values = item.callspec.params.values() if hasattr(item, "callspec") else ()
        names = {
            v.__name__.rpartition(".")[2] if isinstance(v, ModuleType) else v
            for v in values
            if isinstance(v, (str, ModuleType))
        }
        return names & self.leaves

    def _noticed_by(self, mutant: Mutant, judges: list[pytest.Item]) -> str:
        try:
            _take_in(self.folder, mutant)
        except Exception as error:  # such a mutant cannot even be imported
            return f"import: {error}"
        return _first_to_fail(judges)


def _slowly(item: pytest.Item) -> bool:
    """Sorts behind: tests that are unlikely to be the first to notice."""
    return not re.search("scalar|plain|hand|one_token|check_value|under_the_mask", item.name)


def _take_in(folder: str, mutant: Mutant) -> None:
    """Gives the loaded modules of a folder the changed source, and to those that import from it what they import."""
    package = f"apps.{folder.replace('/', '.')}"
    loaded = {n.rpartition(".")[2]: m for n, m in sys.modules.items() if n.startswith(f"{package}.")}
    stem = Path(mutant.file).stem
    exec(compile(mutant.tree, mutant.file, "exec"), vars(loaded[stem]))
    for name in _after(stem, loaded):
        exec(compile(Path(loaded[name].__file__).read_text(encoding="utf-8"), name, "exec"), vars(loaded[name]))


def _after(stem: str, loaded: Mapping[str, ModuleType]) -> Iterator[str]:
    """The modules that import from `stem`, directly or not, each after what it imports from."""
    uses = {name: _imports(Path(module.__file__)) & set(loaded) for name, module in loaded.items()}
    changed, order = {stem}, [stem]
    while new := [
        n for n in sorted(uses) if n not in changed and uses[n] & changed and not _pending(n, uses, changed, stem)
    ]:
        changed |= set(new)
        order += new
    yield from order[1:]


def _pending(name: str, uses: Mapping[str, set[str]], changed: set[str], stem: str) -> bool:
    """Whether `name` imports from a module that is still to be changed."""

    def reaches(n: str) -> bool:
        return n == stem or any(reaches(u) for u in uses[n])

    return any(reaches(u) and u not in changed for u in uses[name])


def _imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module.rpartition(".")[2], *(alias.name for alias in node.names)}
    return found


def _first_to_fail(items: list[pytest.Item]) -> str:
    from _pytest.runner import runtestprotocol

    for item in items:
        if any(report.failed for report in runtestprotocol(item, log=False, nextitem=None)):
            return item.nodeid
    return ""


def _forked(work: Any) -> str:
    """What `work` returns in a process of its own; "hung" where it takes too long."""
    reader, writer = os.pipe()
    if not (child := os.fork()):
        os.close(reader)
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        os.write(writer, work().encode()[:4000])
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        said = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    return said if status == 0 else f"ended by {status}"


def _hurry() -> None:
    """Few examples of each law, and none made smaller: all that counts is whether one fails."""
    real = hypothesis.settings

    class Settings(real):
        def __init__(self, parent: Any = None, **given: Any) -> None:
            given["max_examples"] = min(given.get("max_examples", EXAMPLES), EXAMPLES)
            phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
            super().__init__(parent, **{**given, "phases": phases, "database": None, "derandomize": True})

    hypothesis.settings = Settings


def _warm_up() -> None:
    """What libraries load at first use is loaded before any process is forked."""
    import torch

    x = torch.ones(2, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda y: torch.nn.functional.logsigmoid(y).sum(), x)
    hypothesis.given(hypothesis.strategies.integers())(lambda n: None)()


def main(folder: str, out: str, *only: str) -> int:
    _hurry()
    _warm_up()
    runner = Runner(folder, Path(out), list(only))
    word = folder.rpartition("/")[2].removesuffix("s")
    found = sorted((ROOT / "tests" / "training").glob("test_*.py"))
    files = [str(file) for file in found if f"{word}s" in file.read_text("utf-8")]  # that speak of such leaves
    return int(pytest.main(["-q", "-p", "no:cacheprovider", "-m", "not slow", "--tb=native", *files], [runner]))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
