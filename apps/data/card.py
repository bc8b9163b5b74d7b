"""The model card of the embedded model, written from what its own stages measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from apps.data.arithmetic_corpus import ROLES

MODES = ("careful greedy", "careful sampled", "habit greedy", "habit sampled")

TEXT = """---
license: apache-2.0
library_name: transformers
tags: [merit, arithmetic]
---
# The embedded model

A Llama of {parameters:,} parameters ({vocabulary} tokens: words, and digits one by one) that works on worded arithmetic in a few
steps, as solver, critic, reviser and verifier of a team. It exists so that Merit can show a whole post-training run without
a download. It has bad habits on purpose, in the majority for every role, as a base model from the web has; it is good for
nothing else.

Made by Merit's own DAG: `python workflows/run.py pretrain`.

## Training

| phase | slip | examples | tokens | steps | seconds | last loss (nats a token) |
|---|---:|---:|---:|---:|---:|---:|
{phases}

Data: `apps/data/arithmetic_corpus.py`, train-split problems of `apps/tasks/arithmetic.py` only. `plain` is next-token training on
sums and worked stories, `careful` role-format training with every role doing its work, `habits` the same with {bad:.0%} of each role's
examples replaced by bad habits: solvers that guess, critics that wave through or cry wolf, revisers that copy or break,
verifiers that misread. The solvers of the corpora slip now and then on the way: see the column *slip*, a step's chance.

## Accuracy by role

On {problems} problems of the test split a role, levels {levels}. *Careful*: the first word of a careful completion is put into the
role's mouth, so this is what it can do; *habit*: left alone. Solver and reviser: share of right answers; critic: balanced
accuracy of its verdicts; verifier: share of answers read as they stand. *Sampled* is at temperature 1, where a solver's own
slips show. The model *before* the habits were mixed in, and *as it ships*:

| role | model | {modes} |
|---|---|{rules}
{roles}
"""


def text(facts: Mapping[str, Sequence[Mapping[str, Any]]], options: Mapping[str, Any]) -> str:
    """`facts` holds the reports of the stages `architecture`, `corpus`, `train` (by phase) and `assess` (before, after)."""
    shape = facts["architecture"][0]
    phases = [
        f"| {name} | {slip:.0%} | {data['examples']:,} | {fit['tokens']:,} | {fit['steps']:,} | {fit['seconds']:,.0f} | {fit['loss']:.4f} |"
        for name, slip, data, fit in zip(
            options["phases"], options["slips"], facts["corpus"], facts["train"], strict=True
        )
    ]
    roles = [
        f"| {role} | {name} | " + " | ".join(f"{figures[role][mode]:.3f}" for mode in MODES) + " |"
        for role in ROLES
        for name, figures in zip(("before", "as it ships"), facts["assess"], strict=True)
    ]
    return TEXT.format(
        parameters=shape["parameters"],
        vocabulary=shape["vocabulary"],
        phases="\n".join(phases),
        bad=1 - options["careful"],
        problems=options["problems"],
        levels=", ".join(map(str, options["levels"])),
        modes=" | ".join(MODES),
        rules="---:|" * len(MODES),
        roles="\n".join(roles),
    )
