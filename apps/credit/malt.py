"""Values of a recorded tree, propagated back from its leaves (MALT, arXiv 2412.01928): every turn by what came of it.

V of a turn is the mean of V over the turns that followed it in the tree, and the outcome where none did: for a
generator, verifier and refiner, V(v_ij) = mean_k R(r_ijk) and V(g_i) = mean_j V(v_ij). A turn's value is V − θ, so its
sign is MALT's label (positive: imitate; negative: not), and turns in the same state on either side of θ make the
preference pairs that MALT trains on. θ is .5 (the paper's) or the group's mean outcome.

It asks for no replays; the tree was paid for by the rollout. Independent samples share no beginnings and are refused.
Errors: the standard error of the mean over a turn's followers, each as it is; 0, not estimated, for fewer than two.
An agent's value in a trace is the sum over its turns.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Literal

import numpy as np
from pydantic import Field

from apps import records
from apps.credit import groups
from apps.credit.prefixes import Place, place
from apps.records import Credit, Graded, Group, MeritError, Outcome, Replay

TREE = True  # what it is given has to be a tree: a run plays one wherever it works out credit


class Options(records.Options):
    """Where good turns part from bad ones."""

    theta: Literal["fixed", "dynamic"] = Field("fixed", description="threshold as given, or the group's mean outcome")
    threshold: float = Field(0.5, ge=0, le=1, description="V above it is labelled positive, if theta is fixed")


def asks(options: Options) -> bool:
    return False


def assign(group: Group, options: Options) -> Generator[list[Replay], list[Outcome], list[Credit]]:
    """V − θ of each turn of each leaf; leaves that share a turn give it the same value."""
    yield from ()
    scores = groups.scores(group)
    check_tree(group)
    theta = options.threshold if options.theta == "fixed" else float(np.mean(scores))
    tree = values(group)
    return [valued(graded, tree, theta, groups.agents(group)) for graded in group.graded]


def values(group: Group) -> dict[Place, tuple[float, float]]:
    """V of every turn of a tree and its standard error, by its place in the tree."""
    followers: dict[Place, dict[Place, None]] = {}
    ends: dict[Place, list[float]] = {}
    for graded, score in zip(group.graded, groups.scores(group), strict=True):
        path = [place(graded.trace, k) for k in range(1, len(graded.trace.turns) + 1)]
        for here, after in zip(path, path[1:], strict=False):
            followers.setdefault(here, {})[after] = None
        if path:
            ends.setdefault(path[-1], []).append(score)
    found: dict[Place, tuple[float, float]] = {}
    for here in sorted({*followers, *ends}, key=len, reverse=True):
        came = [found[after][0] for after in followers.get(here, ())] + ends.get(here, [])
        found[here] = float(np.mean(came)), float(np.std(came, ddof=1) / len(came) ** 0.5) if len(came) > 1 else 0.0
    return found


def valued(graded: Graded, tree: dict[Place, tuple[float, float]], theta: float, agents: tuple[str, ...]) -> Credit:
    """The credit of one leaf."""
    mine = [tree[place(graded.trace, k + 1)] for k in range(len(graded.trace.turns))]
    note = tuple(
        f"{turn.path}: V = {v:.2f}, {'positive' if v > theta else 'negative' if v < theta else 'neither'}"
        for turn, (v, _) in zip(graded.trace.turns, mine, strict=True)
    )
    return groups.summed(graded, agents, [v - theta for v, _ in mine], [error for _, error in mine], note)


def check_tree(group: Group) -> None:
    """The sample of a tree's leaf names the branch at each turn; that of an independent play is one number."""
    for graded in group.graded:
        if len(graded.trace.turns) > 1 and "." not in graded.trace.sample:
            raise MeritError(
                f"credit.malt: trace {graded.trace.id!r} is an independent sample of {len(graded.trace.turns)} turns, a "
                "leaf of a tree was expected; set rollout.plan=tree, or take a method that replays "
                "(credit.name=counterfactual)"
            )
