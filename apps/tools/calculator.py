"""Works out an arithmetic expression: + - * / ** and brackets, exactly."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from fractions import Fraction

from apps import records

BINARY: dict[type, Callable] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
LONGEST, LARGEST_POWER, MOST_BITS = 200, 64, 10_000


class Options(records.Options):
    """Nothing to choose."""


def use(expression: str) -> str:
    """The value of `expression` as text; what cannot be worked out is said, not raised."""
    try:
        if len(expression) > LONGEST:
            raise ValueError(f"longer than {LONGEST} characters")
        return str(value(ast.parse(expression.strip(), mode="eval").body))
    except (ArithmeticError, ValueError, SyntaxError, RecursionError, MemoryError) as error:
        return f"error: {error}"


def value(node: ast.expr) -> Fraction:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return Fraction(str(node.value))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -value(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in BINARY:
        return BINARY[type(node.op)](value(node.left), value(node.right))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        power = value(node.right)
        if power.denominator != 1 or abs(power) > LARGEST_POWER:
            raise ValueError(f"a power must be a whole number up to {LARGEST_POWER}")
        base = value(node.left)
        if abs(power) * max(base.numerator.bit_length(), base.denominator.bit_length()) > MOST_BITS:
            raise ValueError("a number would be too large")
        return base ** int(power)
    raise ValueError(f"not arithmetic: {ast.unparse(node)}")
