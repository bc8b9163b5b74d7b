"""What waits in a simulation: which tasks are ready, in the plan's order, and which come to be when one is done."""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from workflows.simulation.shape import Group

Task = TypeVar("Task")


class Waiting:
    """Of all groups of a run. A task is (number of its group, number in it)."""

    def __init__(self, groups: Sequence[Group]) -> None:
        self.groups = groups
        self.after: list[list[tuple[int, bool]]] = [[] for _ in groups]
        for number, group in enumerate(groups):
            for need in group.needs:
                self.after[need.group].append((number, need.each))
        self.whole_left = [sum(not need.each for need in group.needs) for group in groups]
        self.each_left = [[sum(need.each for need in group.needs)] * group.count for group in groups]
        self.left = [group.count for group in groups]
        self.over = [bytearray(group.count) for group in groups]
        # of each group that trains: the plays that it waits for; and of each group: those that it feeds
        self.feeders = {n: _feeders(groups, n) for n, group in enumerate(groups) if group.label == "training"}
        self.fed = [[n for n, fed in self.feeders.items() if number in fed] for number in range(len(groups))]
        self.ready: dict[str, list[int]] = {}  # executor -> groups with tasks that wait
        self.waiting: list[deque[int]] = [deque() for _ in groups]
        for number, group in enumerate(groups):
            if not group.needs:
                self.put(number, range(group.count))

    def anything_left(self) -> bool:
        return any(self.left)

    def put(self, group: int, indices: Iterable[int]) -> None:
        """They wait for a place."""
        if not self.waiting[group]:
            insort(self.ready.setdefault(self.groups[group].label, []), group)
        self.waiting[group].extend(indices)

    def put_again(self, group: int, index: int) -> None:
        """It was begun and not ended. Nothing if it is done by now, or waits already."""
        if not self.over[group][index] and index not in self.waiting[group]:
            self.put(group, [index])

    def take(self, label: str, place: Callable[[int, int], Task | None]) -> Task | None:
        """The first task of an executor that a place is found for: where one does not fit, a shorter one may."""
        for group in list(self.ready.get(label, ())):
            queue = self.waiting[group]
            while queue and self.over[group][queue[0]]:  # a copy that came too late
                queue.popleft()
            task = place(group, queue[0]) if queue else None
            if task:
                queue.popleft()
            if not queue:
                self.ready[label].remove(group)
            if task:
                return task
        return None

    def done(self, number: int, index: int) -> None:
        """What waited for it, and for nothing else, is ready."""
        self.left[number] -= 1
        self.over[number][index] = 1
        for other, each in self.after[number]:
            if each:
                self.each_left[other][index] -= 1
                if not self.each_left[other][index] and not self.whole_left[other]:
                    self.put(other, [index])
            elif not self.left[number]:
                self.whole_left[other] -= 1
                if not self.whole_left[other]:
                    self.put(other, [i for i, left in enumerate(self.each_left[other]) if not left])


def _feeders(groups: Sequence[Group], number: int) -> set[int]:
    """The plays and replays that a training group waits for, as far back as the last training."""
    found, seen, todo = set(), {number}, [number]
    while todo:
        for need in groups[todo.pop()].needs:
            group = groups[need.group]
            if need.group in seen or group.label == "training":
                continue
            seen.add(need.group)
            todo.append(need.group)
            if group.label == "inference":
                found.add(need.group)
    return found
