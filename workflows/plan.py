"""The DAG, recorded: every task with its key, before anything runs. A dry run stops here; a live one launches each node.

A workflow adds nodes and never looks at results, so what there is to do is known at once, and two equal tasks are one node.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from apps.stages import Stage
from workflows import closure
from workflows.config import LEAVES
from workflows.store import Store


@dataclass(eq=False, slots=True)
class Node:
    """A task of the DAG; `future` gives its artifact once it was launched."""

    stage: Stage
    key: str
    options: Mapping[str, Any]
    inputs: Mapping[str, Sequence[Node]]
    round: int  # of the run, for the display; 0 = before the first
    lineage: str = ""  # the key but for how it is carried out: it goes on from what another such task has saved
    number: int = 0  # in the plan: of tasks that wait for a worker the earlier one goes first
    future: Future | None = field(default=None, repr=False)


class Plan:
    """Takes nodes; `launch(node) -> Future` starts each as soon as it is known, None records only.

    `within` holds the nodes of a larger plan by key, of which this one is a part: what is there already is taken from
    there, the rest is added to both.
    """

    def __init__(self, launch: Callable[[Node], Future] | None = None, within: dict[str, Node] | None = None) -> None:
        self.nodes: dict[str, Node] = {}
        self.round = 0  # the workflow says where it is
        self._launch = launch
        self._within = self.nodes if within is None else within

    def add(self, stage: Stage, inputs: Mapping[str, Node | Sequence[Node]] | None = None, **options: Any) -> Node:
        """A task of `stage` on the results of other nodes. The same stage, options and inputs give the same node."""
        given = {name: [n] if isinstance(n, Node) else list(n) for name, n in (inputs or {}).items()}
        keys = {name: [n.key for n in nodes] for name, nodes in given.items()}
        named = [(LEAVES[k], v) for k, v in options.items() if k in LEAVES]
        named += [("credit", method) for method in _methods(options)]
        roots = [stage.module, *(closure.root(folder, section["name"]) for folder, section in named)]
        code = closure.code_digest(roots)
        key = Store.key(stage.name, code, options, keys)
        node = self._within.get(key)
        if node is None:
            lineage = Store.key(stage.name, code, _what(stage, options), keys) if stage.carried_out else ""
            node = self._within[key] = Node(stage, key, options, given, self.round, lineage, len(self._within))
            if self._launch:
                node.future = self._launch(node)
        return self.nodes.setdefault(key, node)

    def counts(self) -> dict[str, int]:
        """Tasks by stage, in the order in which stages appear."""
        return dict(Counter(node.stage.name for node in self.nodes.values()))

    def finished(self, store: Store) -> dict[str, int]:
        """How many of them the store already holds."""
        return dict(Counter(n.stage.name for n in self.nodes.values() if store.has(n.stage.name, n.key)))


def _what(stage: Stage, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options without those that say how a task of the stage is carried out."""
    section, how = stage.carried_out
    return {**options, section: {name: value for name, value in options[section].items() if name not in how}}


def _methods(options: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The credit sections of a task that several methods share: a list, or by name."""
    given = options.get("methods", ())
    return list(given.values() if isinstance(given, Mapping) else given)
