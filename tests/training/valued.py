"""Turns as an advantage estimator sees them, made by hand."""

from __future__ import annotations

from apps.records import Valued


def turn(value, trace="t#0", agent="solver", index=0, state="s", task="t", outcome=0.0):
    return Valued(task, trace, agent, index, state, value, outcome)


def run(module, turns, **options):
    return module.advantages(turns, module.Options(**options)).tolist()
