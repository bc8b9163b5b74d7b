"""The shape of a plan: which groups of equal tasks it has, and which group waits for which.

A plan of a few shards a round has the shape of one of thousands, so that only the small one has to be made: `rollout.shards` and
`evaluation.shards` are given numbers that nothing else in the plan has, and groups of so many tasks are then scaled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from workflows.plan import Node, Plan

MARKS = {"rollout": 11, "evaluation": 13}  # shards of the small plan: primes, which no team has as many agents of


@dataclass(frozen=True, slots=True)
class Need:
    """A group that must have ended first: all of it, or shard i of it for task i."""

    group: int
    each: bool


@dataclass(frozen=True, slots=True)
class Group:
    """Equal tasks that were planned together."""

    stage: str
    label: str  # of the executor
    round: int
    count: int
    needs: tuple[Need, ...]
    kind: str = ""  # "rollout" or "evaluation" where its number is that of the shards of one, else ""


def shape(plan: Plan) -> list[Group]:
    """The groups of a plan in its order; `needs` point to earlier ones."""
    members = _runs(plan)
    place = {node.key: (number, i) for number, group in enumerate(members) for i, node in enumerate(group)}
    return [_group(group, members, place) for group in members]


def scaled(groups: Sequence[Group], shards: Mapping[str, int]) -> list[Group]:
    """The same with so many shards of rollouts and of evaluations."""
    return [replace(group, count=shards[group.kind]) if group.kind in shards else group for group in groups]


def _runs(plan: Plan) -> list[list[Node]]:
    """Neighbours of one stage and round."""
    found: list[list[Node]] = []
    for node in plan.nodes.values():
        if found and (found[-1][0].stage.name, found[-1][0].round) == (node.stage.name, node.round):
            found[-1].append(node)
        else:
            found.append([node])
    return found


def _group(group: list[Node], members: list[list[Node]], place: Mapping[str, tuple[int, int]]) -> Group:
    wanted: dict[int, list[set[int]]] = {}
    for i, node in enumerate(group):
        for given in (given for nodes in node.inputs.values() for given in nodes):
            number, index = place[given.key]
            wanted.setdefault(number, [set() for _ in group])[i].add(index)
    needs = [Need(number, _each(sets, len(members[number]))) for number, sets in sorted(wanted.items())]
    first, marks = group[0], {count: kind for kind, count in MARKS.items()}
    return Group(first.stage.name, first.stage.label, first.round, len(group), tuple(needs), marks.get(len(group), ""))


def _each(sets: Sequence[set[int]], count: int) -> bool:
    """Whether task i waits for shard i alone, of as many."""
    return count > 1 and len(sets) == count and all(found == {i} for i, found in enumerate(sets))
