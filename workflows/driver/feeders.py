"""Which training tasks will soon be ready: those before which few plays of the plan are left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from workflows.plan import Node

SOON = 0.1  # plays that are left, a worker of inference: nodes that are lent by then are empty when training is ready, or soon after


class Feeders:
    """Of one plan. A training task waits for the plays that are planned before it, as waiting plays go in the plan's order.

    `wants` says of which training tasks is asked.
    """

    def __init__(self, nodes: Iterable[Node], wants: Callable[[Node], bool]) -> None:
        self._trainings: list[set[str]] = []  # those that follow one another in the plan, without a play between them
        self._part: dict[str, int] = {}  # of each play: the number of those that it is planned before
        self._left: Counter[int] = Counter()
        self._first = 0  # before it all are over
        fed = False
        for node in sorted(nodes, key=lambda node: node.number):
            if node.stage.label == "inference":
                self._part[node.key], fed = len(self._trainings), False
                self._left[len(self._trainings)] += 1
            elif wants(node):
                if not fed:
                    self._trainings.append(set())
                self._trainings[-1].add(node.key)
                fed = True
        self._batch = {key: number for number, keys in enumerate(self._trainings) for key in keys}

    def ended(self, key: str) -> None:
        """A task has."""
        if (part := self._part.pop(key, None)) is not None:
            self._left[part] -= 1
        elif (batch := self._batch.pop(key, None)) is not None:
            self._trainings[batch].discard(key)

    def soon(self, most: float) -> set[str]:
        """The training tasks that have not ended and wait for at most so many plays."""
        while self._first < len(self._trainings) and not self._left[self._first] and not self._trainings[self._first]:
            self._first += 1
        found, left = set(), 0
        for number in range(self._first, len(self._trainings)):
            left += self._left[number]
            if left > most:
                break
            found |= self._trainings[number]
        return found
