"""When a run's results go into packs (apps/dormant.py): at the end of a round those that no task of the plan still waits for.

It is done beside the driver, in a thread of its own, and once more at the run's end. For a report (stages.LATE) nothing is kept before
it can begin, since it reads packs. What another run at work on the same store refers to stays a folder, and so does what a failed task
would have had, for its next attempt. Fewer results than make a pack wait for more; a run that has no more is left alone.
"""

from __future__ import annotations

import fcntl
import logging
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from apps import artifacts, dormant, stages
from workflows.driver import references
from workflows.plan import Node

LEAST = 100  # results that make a pack, but for the last one of a run
PATIENCE_S = 5  # with a pack that is being written when the run is broken off; it may be killed at any moment

log = logging.getLogger("merit.packing")


class Packing:
    """Which results nobody waits for any more, of the run or study in `folder`. Not `wanted`, it does nothing."""

    def __init__(self, root: Path, folder: Path, wanted: bool = True) -> None:
        self.root, self.folder = root, folder
        self.at_it = threading.Lock()  # held while something is packed
        self._lock, self._call = threading.Lock(), threading.Event()
        self._wanted, self._last = wanted, False
        self._known: set[str] = set()  # keys of tasks whose inputs are kept for them
        self._followed: set[str] = set()
        # key -> how many wait: its own task, those that it goes into, and the driver where it will read it
        self._waiting: Counter[str] = Counter()
        self._left: Counter[int] = Counter()  # round -> unfinished tasks that were handed over
        self._over: set[str] = set()
        self._late: dict[str, list[Node]] = {}  # key of an unfinished task -> late ones that read what it makes
        self._missing: Counter[str] = Counter()  # key of a late task -> those that are to be over before it can begin
        self._free: dict[str, Node] = {}  # nobody waits for them

    def expect(self, nodes: Iterable[Node]) -> None:
        """Tasks that will be handed over; what goes into them is kept for them."""
        with self._lock:
            for node in nodes:
                if node.key not in self._known:
                    self._known.add(node.key)
                    self._waiting[node.key] += 1
                    if node.stage.name in stages.LATE:
                        self._put_off(node)
                    else:
                        self._waiting.update(one.key for one in _inputs(node))

    def follow(self, nodes: Iterable[Node]) -> None:
        """Tasks that were handed over."""
        self.expect(nodes := list(nodes))
        with self._lock:
            new = [node for node in nodes if node.key not in self._followed]
            self._followed.update(node.key for node in new)
            self._left.update(node.round for node in new)
        for node in new:
            node.future.add_done_callback(partial(self._is_over, node))

    def hold(self, nodes: Iterable[Node]) -> None:
        """Keeps what the driver itself will read, until it lets go of it."""
        with self._lock:
            self._waiting.update(node.key for node in nodes)

    def let_go(self, nodes: Iterable[Node]) -> None:
        with self._lock:
            self._release(nodes)
        self._call.set()

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Packs as rounds end, while the block goes on."""
        thread = threading.Thread(target=self._carry_on, name="packing", daemon=True)
        thread.start()
        try:
            yield
        except BaseException:
            self._wanted = False
            raise
        finally:
            self._last = True
            self._call.set()
            thread.join(None if self._wanted else PATIENCE_S)

    def pack(self) -> None:
        """Packs what nobody waits for, if it is enough for a pack."""
        with self.at_it:
            try:
                if self._wanted:
                    self._pack(self._taken())
            except OSError as error:
                self._wanted = False
                log.warning("results are packed no more: %s; all of them are kept", error)

    def _carry_on(self) -> None:
        while not self._last:
            self._call.wait()
            self._call.clear()
            if not self._last:  # what comes last is asked for when all is told
                self.pack()

    def _taken(self) -> list[Path]:
        """What can be packed now; the rest waits for more."""
        with self._lock:
            rounds = [number for number, left in self._left.items() if number and left]
            oldest = min(rounds) if rounds and not self._last else float("inf")
            free = {key: node for key, node in self._free.items() if not self._waiting[key] and node.round < oldest}
            self._free = {key: node for key, node in self._free.items() if key not in free}
        places = {key: artifacts.locate(self.root, node.stage.name, key) for key, node in free.items()}
        there = {key: place for key, place in places.items() if place.is_dir()}
        new = {key: free[key] for key, place in there.items() if not dormant.holds(place)}
        if len(new) >= LEAST or (self._last and len(self._known) >= LEAST):
            return list(there.values())
        with self._lock:
            self._free |= new
        return [place for key, place in there.items() if key not in new]  # they were woken

    def _pack(self, places: Sequence[Path]) -> None:
        others = references.of_others(self.root, self.folder) if places else set()
        ours = [place for place in places if (place.parts[-3], place.name) not in others]
        packed = dormant.pack(self.root, ours, lambda: self._wanted)
        if packed:
            with references.locked(self.root, fcntl.LOCK_EX):
                others = references.of_others(self.root, self.folder)  # one may have begun meanwhile
                spare = [place for place in packed if (place.parts[-3], place.name) not in others]
                # a late task may have begun meanwhile, or begin now
                gone = dormant.take_down(self.root, (place for place in spare if not self._waiting[place.name]))
            dormant.remove(gone)

    def _is_over(self, node: Node, future: Future) -> None:
        if future.cancelled() or future.exception():
            return
        with self._lock:
            self._over.add(node.key)
            for late in self._late.pop(node.key, ()):
                self._missing[late.key] -= 1
                self._begin(late)
            self._release([node, *_inputs(node)])
            self._left[node.round] -= 1
            over = not self._left[node.round] and any(self._left.values())  # when all is over, the driver asks for it
        if over:
            self._call.set()

    def _put_off(self, late: Node) -> None:
        """What it reads is kept from when it can begin."""
        for one in _inputs(late):
            if one.key not in self._over:
                self._late.setdefault(one.key, []).append(late)
                self._missing[late.key] += 1
        self._begin(late)

    def _begin(self, late: Node) -> None:
        if not self._missing[late.key]:
            self._waiting.update(one.key for one in _inputs(late))

    def _release(self, nodes: Iterable[Node]) -> None:
        for node in nodes:
            self._waiting[node.key] -= 1
            if not self._waiting[node.key]:
                self._free[node.key] = node


def _inputs(node: Node) -> list[Node]:
    """What a task is made from, each once."""
    return list({one.key: one for nodes in node.inputs.values() for one in nodes}.values())
