"""Imports point down only, and every leaf offers what its folder promises: read from the sources, nothing is imported.

The order, from the top: the command and what carries a run out, the DAGs, `apps/stages.py`, a stage's `app.py`, its leaves,
the vocabulary. A stage's `app.py` may read what other stages wrote, through their readers; a leaf may not.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(f for top in ("apps", "workflows") for f in (ROOT / top).rglob("*.py"))
FUNCTION = {  # a folder of leaves -> what each of its leaves offers, besides Options
    "apps/tasks": {"load", "VERIFIER"},
    "apps/topologies": {"play", "ROLES", "PROMPTS", "DUTIES"},
    "apps/inference/engines": {"load"},
    "apps/reward": {"verify", "check_gold"},
    "apps/credit": {"assign", "asks"},
    "apps/training/advantages": {"advantages"},
    "apps/training/objectives": {"loss", "NEEDS"},
    "apps/training/schedules": {"lineup"},
    "apps/tools": {"use"},
}
READERS = {"apps.tasks.app", "apps.evaluation.app"}  # they also hold the reader of what their stage wrote
VOCABULARY = {
    "apps",
    "apps.records",
    "apps.leaf",
    "apps.effects",
    "apps.answer",
    "apps.scoring",
    "apps.weights",
}  # what every file may use


def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def name(file: Path) -> str:
    """The dotted name of a module."""
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name(file): file for file in SOURCES}


def imports(file: Path) -> set[str]:
    """Every module that a file imports, at its top or inside a function, but not for type checkers alone."""
    found: set[str] = set()
    pending: list[ast.AST] = [tree(file)]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            found |= {
                f"{node.module}.{a.name}" if f"{node.module}.{a.name}" in MODULES else node.module for a in node.names
            }
        pending += ast.iter_child_nodes(node)
    return found


def own(file: Path) -> set[str]:
    return {module for module in imports(file) if module in MODULES}


def assigned(file: Path) -> set[str]:
    """The names that a file defines at its top."""
    names: set[str] = set()
    for node in tree(file).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {t.id for target in node.targets for t in ast.walk(target) if isinstance(t, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return names


def leaves() -> list[Path]:
    return [f for folder in FUNCTION for f in sorted((ROOT / folder).glob("*.py")) if "Options" in assigned(f)]


def stage_of(module: str) -> str:
    """The folder of apps/ that a module lies in; "" for the files directly under apps/."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and (ROOT / "apps" / parts[1]).is_dir() else ""


@pytest.mark.parametrize("file", [f for f in SOURCES if f.is_relative_to(ROOT / "apps")], ids=name)
def test_nothing_under_apps_knows_of_the_workflows_and_only_the_stages_of_parsl(file):
    found = imports(file)
    assert not {module for module in found if module.split(".")[0] == "workflows"}
    if name(file) != "apps.stages":
        assert not {module for module in found if module.split(".")[0] == "parsl"}
        assert "apps.stages" not in found


@pytest.mark.parametrize("file", leaves(), ids=name)
def test_a_leaf_imports_no_other_stage(file):
    """Only the vocabulary, and modules of its own folder or of the folders above it that are no `app.py`."""
    folder = name(file).rpartition(".")[0]
    for module in own(file) - VOCABULARY:
        assert stage_of(module) == stage_of(name(file)), f"{name(file)} imports {module} of another stage"
        assert folder.startswith(module.rpartition(".")[0]), f"{name(file)} imports {module}"
        assert not module.endswith(".app"), f"{name(file)} imports {module}, which is above it"


@pytest.mark.parametrize("file", [f for f in SOURCES if f.is_relative_to(ROOT / "apps")], ids=name)
def test_an_app_is_imported_by_apps_alone(file):
    """A formula or a record that imports an `app.py` would point up. What reads finished results may use READERS."""
    found = {module for module in own(file) if module.endswith(".app")}
    if file.name != "app.py":
        assert found <= (READERS if stage_of(name(file)) == "report" else set())


def test_the_vocabulary_imports_only_itself():
    for module in VOCABULARY:
        assert own(MODULES[module]) <= VOCABULARY, module


def test_no_import_goes_round():
    """What a module imports, even inside of a function, never leads back to it."""
    below = {module: own(file) - {module} for module, file in MODULES.items()}

    def reach(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in seen:
            for other in below[module]:
                reach(other, (*path, module))
            seen.add(module)

    seen: set[str] = set()
    for module in MODULES:
        reach(module, ())


@pytest.mark.parametrize("file", leaves(), ids=name)
def test_a_leaf_offers_what_its_folder_promises(file):
    folder = file.parent.relative_to(ROOT).as_posix()
    missing = FUNCTION[folder] - assigned(file)
    assert not missing
    first = (ast.get_docstring(tree(file)) or "").split("\n")[0]
    assert first.endswith((".", ":")) and 20 < len(first) < 140, f"`list` would print {first!r}"


@pytest.mark.parametrize("folder", FUNCTION)
def test_every_folder_of_leaves_has_some(folder):
    assert [f for f in leaves() if f.parent == ROOT / folder]


@pytest.mark.parametrize("file", SOURCES, ids=name)
def test_heavy_libraries_are_imported_where_they_are_used(file):
    """At the top of a file they would cost `--help` and a typo some seconds."""
    top = [node for node in tree(file).body if isinstance(node, (ast.Import, ast.ImportFrom))]
    heavy = {"torch", "transformers", "peft", "datasets", "math_verify", "matplotlib", "h5py", "reasoning_gym", "parsl"}
    found = {(n.module if isinstance(n, ast.ImportFrom) else n.names[0].name).split(".")[0] for n in top}
    of_parsl = (
        "workflows.driver.memoizer",
        "workflows.driver.resting",
        "workflows.driver.lent",
        "workflows.cluster.threads",
    )  # classes of Parsl's, imported with it
    allowed = {"parsl"} if name(file) in of_parsl else set()
    assert not found & heavy - allowed


def test_the_overview_has_a_remark_on_every_file():
    page = (ROOT / "docs" / "overview.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(?:[\w/]+/)?(\w+\.(?:py|jinja|html\.jinja))`", page))
    assert not {file.name for file in SOURCES if file.name != "__init__.py"} - named
