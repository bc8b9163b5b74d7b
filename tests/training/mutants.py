"""Small changes of a source file that a test has to notice: of a sign, a mask, a denominator, a ddof, the side of a clip, a group.

A mutant is a syntax tree with one such change, made inside a function; what errors say is left alone.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

Change = tuple[str, ast.AST]  # (kind, what stands there instead)

SETS = ("needs", "wanted")  # functions that name what is read, and compute nothing
COUNTS = {"tokens": "sequences", "sequences": "tokens", "pairs": "sequences", "states": "sequences"}
SWAPPED = {"minimum": "maximum", "maximum": "minimum", "min": "max", "max": "min"}
TURNED = {ast.Lt: ast.Gt, ast.Gt: ast.Lt, ast.LtE: ast.GtE, ast.GtE: ast.LtE}
OPPOSITE = {ast.Eq: ast.NotEq, ast.NotEq: ast.Eq}


@dataclass(frozen=True)
class Mutant:
    """One change of a file."""

    file: str  # its name
    line: int
    kind: str  # sign, mask, denominator, ddof, clip, half or group
    before: str
    after: str
    tree: ast.Module

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.kind}: {self.before}  →  {self.after}"


def mutants(path: Path) -> Iterator[Mutant]:
    """Every mutant of a source file, in the order of its lines."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    places = [place for place in _places(tree)]
    for number, node in enumerate(places):
        for choice, (kind, other) in enumerate(_changes(node)):
            mutated = copy.deepcopy(tree)
            target = _places(mutated)[number]
            instead = list(_changes(target))[choice][1]
            mutated = ast.fix_missing_locations(_Replace(target, instead).visit(mutated))
            yield Mutant(path.name, node.lineno, kind, ast.unparse(node), ast.unparse(other), mutated)


def _places(tree: ast.Module) -> list[ast.AST]:
    """The expressions inside functions that can be changed, errors and their conditions left out."""
    found: list[ast.AST] = []

    def walk(node: ast.AST, plain: bool) -> None:
        if isinstance(node, (ast.Raise, ast.Assert, ast.JoinedStr, ast.arguments)):
            return
        if isinstance(node, ast.If) and any(isinstance(child, ast.Raise) for child in node.body):
            return
        if isinstance(node, ast.For) and any(isinstance(child, ast.Raise) for child in node.body):
            return
        plain = plain or (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "float")
        if list(_changes(node)) and not (plain and _is_call(node, "detach")):  # a number carries no gradient anyway
            found.append(node)
        for child in ast.iter_child_nodes(node):
            walk(child, plain)

    for function in [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name not in SETS]:
        for statement in function.body:
            walk(statement, False)
    return list(dict.fromkeys(found))


def _changes(node: ast.AST) -> Iterator[Change]:
    node = copy.deepcopy(node)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield "sign", node.operand
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Invert):
        yield "mask", node.operand
    elif isinstance(node, ast.BinOp):
        yield from _of_binary(node)
    elif isinstance(node, ast.Compare) and len(node.ops) == 1:
        yield from _of_comparison(node)
    elif isinstance(node, ast.Call):
        yield from _of_call(node)
    elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "batch":
        if node.attr in COUNTS:
            yield "denominator", ast.Attribute(node.value, COUNTS[node.attr], ast.Load())
    elif isinstance(node, ast.Tuple) and len(node.elts) > 1 and all(map(_is_field, node.elts)):
        for place in range(len(node.elts)):
            yield "group", ast.Tuple([e for n, e in enumerate(node.elts) if n != place], ast.Load())
    elif isinstance(node, ast.Slice) and isinstance(node.step, ast.Constant) and isinstance(node.lower, ast.Constant):
        yield "half", ast.Slice(ast.Constant(1 - node.lower.value), node.upper, node.step)


def _of_binary(node: ast.BinOp) -> Iterator[Change]:
    if isinstance(node.op, ast.Sub) and isinstance(node.right, ast.Constant):
        yield "ddof", node.left
    elif isinstance(node.op, (ast.Add, ast.Sub)):
        yield "sign", ast.BinOp(node.left, ast.Sub() if isinstance(node.op, ast.Add) else ast.Add(), node.right)
    elif isinstance(node.op, ast.Div):
        yield "denominator", node.left
    elif isinstance(node.op, ast.BitAnd):
        yield "mask", node.left
        yield "mask", node.right


def _of_comparison(node: ast.Compare) -> Iterator[Change]:
    (kind,) = map(type, node.ops)
    if kind in TURNED:
        yield "clip", ast.Compare(node.left, [TURNED[kind]()], node.comparators)
    elif kind in OPPOSITE:
        yield "mask", ast.Compare(node.left, [OPPOSITE[kind]()], node.comparators)


def _of_call(node: ast.Call) -> Iterator[Change]:
    name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
    method = isinstance(node.func, ast.Attribute)
    if name == "own" and not method:
        yield "mask", node.args[0]
    elif name == "masked_fill":
        yield "mask", node.func.value
    elif name == "detach":
        yield "sign", node.func.value
    elif name == "mean" and method and not node.args:
        yield "denominator", ast.Call(ast.Attribute(node.func.value, "sum", ast.Load()), [], node.keywords)
    elif name == "clamp" and len(node.args) == 2:
        yield "clip", ast.Call(node.func, [], [ast.keyword("min", node.args[0])])
        yield "clip", ast.Call(node.func, [], [ast.keyword("max", node.args[1])])
    elif name == "clamp" and node.keywords:
        yield "clip", node.func.value
        yield "clip", ast.Call(node.func, [], [ast.keyword(SWAPPED[k.arg], k.value) for k in node.keywords])
    elif name in SWAPPED:
        swapped = (
            ast.Attribute(node.func.value, SWAPPED[name], ast.Load()) if method else ast.Name(SWAPPED[name], ast.Load())
        )
        yield "clip", ast.Call(swapped, node.args, node.keywords)
    for place, given in enumerate(node.keywords):
        if given.arg == "ddof":
            other = [*node.keywords]
            other[place] = ast.keyword("ddof", ast.Constant(1 - given.value.value))
            yield "ddof", ast.Call(node.func, node.args, other)


def _is_field(node: ast.AST) -> bool:
    """`turn.agent`, `row.state`: what turns are grouped by."""
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and isinstance(node.ctx, ast.Load)


def _is_call(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == name


class _Replace(ast.NodeTransformer):
    def __init__(self, target: ast.AST, instead: ast.AST) -> None:
        self.target, self.instead = target, instead

    def visit(self, node: ast.AST) -> ast.AST:
        return self.instead if node is self.target else super().visit(node)
