"""The digest of the code that a stage runs: the project's own modules that it imports, directly or not.

Read from the sources, never imported: an import anywhere in a module counts, inside functions too. Comments, docstrings
and layout do not count, so that writing a remark re-runs nothing. Of the libraries only the versions count, and only of
those that decide numbers. Leaves are found by name when a stage runs, so no import leads to them: they are given as
roots of their own, and the leaves that a topology finds in its turn are named in its USES, which is followed like an import.
Data files that a module reads are not code; give their digest in the stage's options.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from apps import records
from apps.records import MeritError

ROOT = Path(__file__).resolve().parents[1]
OWN = ("apps", "workflows")
DECIDING = {  # an imported name -> the distributions behind it that decide numbers
    "torch": ("torch",),
    "transformers": ("transformers", "tokenizers", "torch"),
    "peft": ("peft", "transformers", "torch"),
    "tokenizers": ("tokenizers",),
    "numpy": ("numpy",),
    "math_verify": ("math-verify", "sympy"),
    "reasoning_gym": ("reasoning-gym",),
    "deepspeed": ("deepspeed",),
    "vllm": ("vllm",),
}
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True, slots=True)
class Module:
    """What counts of one source file."""

    shape: str  # digest of its syntax tree without docstrings
    imports: frozenset[str]  # dotted names that it imports; "a.b.c" of `from a.b import c` may be no module
    uses: frozenset[str]  # roots of the leaves in its USES


def code_digest(modules: Sequence[str]) -> str:
    """One digest of the closure of `modules`: dotted names ("apps.credit.app") or paths of files ("mine.py")."""
    return _digest(tuple(sorted(set(modules))))


def root(folder: str, name: str) -> str:
    """The root that stands for a leaf, named as in a configuration: "shapley", "mylab.credit.mine" or "mine.py"."""
    return name if "." in name else f"apps.{folder.replace('/', '.')}.{name}"


def closure(modules: Sequence[str]) -> dict[Path, str]:
    """The own modules that `modules` import, themselves included: file -> name. A file given by path has its stem's."""
    found: dict[Path, str] = {}
    pending = [_start(name) for name in modules]
    while pending:
        path, name = pending.pop()
        if path not in found:
            found[path] = name
            pending += [(file, other) for other in _reach(path, name) if (file := source(other))]
            pending += [_start(used) for used in _read(path, _package(path, name)).uses]
    return found


@cache
def source(name: str) -> Path | None:
    """The file of an own module (the project's or a user's); None for a library, or if there is no such module."""
    top, *rest = name.split(".")
    base = ROOT / top if top in OWN else _outside(top)
    if base is None:
        return None
    stem = base.joinpath(*rest)
    return next((f for f in (stem.with_name(stem.name + ".py"), stem / "__init__.py") if f.is_file()), None)


@cache
def _digest(modules: tuple[str, ...]) -> str:
    parts = [(name, _read(path, _package(path, name))) for path, name in closure(modules).items()]
    tops = {imported.split(".")[0] for _, module in parts for imported in module.imports}
    libraries = {dist for top in tops for dist in DECIDING.get(top, ())}
    return records.digest(
        {
            "modules": sorted((name, module.shape) for name, module in parts),
            "libraries": {dist: _version(dist) for dist in libraries},
        }
    )


def _start(name: str) -> tuple[Path, str]:
    path = Path(name).resolve() if name.endswith(".py") else source(name)
    if path is None or not path.is_file():
        raise MeritError(f"the code of a stage: there is no module or file {name!r}")
    return path, path.stem if name.endswith(".py") else name


def _reach(path: Path, name: str) -> set[str]:
    """What importing a module runs: what it imports, and the packages on the way to that and to itself."""
    imports = _read(path, _package(path, name)).imports | {name}
    return {".".join(parts[: n + 1]) for parts in (i.split(".") for i in imports) for n in range(len(parts))}


def _package(path: Path, name: str) -> str:
    return name if path.name == "__init__.py" else name.rpartition(".")[0]


@cache
def _read(path: Path, package: str) -> Module:
    imports: set[str] = set()
    tree = ast.parse(path.read_bytes(), str(path))
    shape = _shape(tree, package, imports)
    return Module(records.digest(repr(shape)), frozenset(imports), frozenset(_uses(tree, path)))


def _uses(tree: ast.Module, path: Path) -> list[str]:
    """The roots of the leaves in a module's `USES = ((folder, leaf), …)`; it has to be written out, since nothing is run."""
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == "USES" for target in targets):
            try:
                return [root(folder, name) for folder, name in ast.literal_eval(node.value)]
            except (ValueError, TypeError, AttributeError) as error:
                raise MeritError(
                    f"{path}, line {node.lineno}: USES has to be written out as pairs of a folder and a leaf, "
                    f'as in USES = (("tools", "calculator"),)'
                ) from error
    return []


def _shape(node: Any, package: str, imports: set[str]) -> Any:
    """A syntax tree as nested lists without docstrings; the imports that it has are added to `imports`.

    Empty fields are left out: Python versions differ in which there are. One pass, since it is made at every start.
    """
    if isinstance(node, list):
        return [_shape(item, package, imports) for item in node]
    if not isinstance(node, ast.AST):
        return node
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        imports.update(_imported(node, package))
    shape: list[Any] = [type(node).__name__]
    for name in node._fields:
        value = getattr(node, name, None)
        if name == "body" and isinstance(node, DOCUMENTED):
            value = _without_docstring(value)
        if value is not None and value != []:
            shape.append((name, _shape(value, package, imports)))
    return shape


def _imported(node: ast.Import | ast.ImportFrom, package: str) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
    base = ".".join([*above, *([node.module] if node.module else [])])
    return [f"{base}.{alias.name}" for alias in node.names]


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    first = body[0] if body else None
    text = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    return body[1:] if text else body


@cache
def _outside(top: str) -> Path | None:
    """Where a user's own package or module lies, without its suffix; None for libraries and Python's own."""
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    folders = spec.submodule_search_locations or ()  # a package without __init__.py has no other origin
    origin = Path(spec.origin or next((f"{folder}/__init__.py" for folder in folders), ""))
    if origin.suffix != ".py":
        return None
    own = not {"site-packages", "dist-packages"} & set(origin.parts)
    if not own or origin.is_relative_to(sysconfig.get_paths()["stdlib"]):
        return None
    return origin.parent if origin.name == "__init__.py" else origin.with_suffix("")


@cache
def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
