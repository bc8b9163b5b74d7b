"""Nodes go from playing to training and back, round by round: a training task of several ranks is given whole nodes.

What the site's `Shares` keep for training is given to one task after the other. Where training may have nodes that play as well,
they are lent when it waits for nodes, or soon will: Parsl's interchange gives their workers no further task (lent.py), and once
those that they have are over the nodes are training's. Which node goes to whom: job_nodes.py.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

from apps import stages
from apps.platform import mpi
from apps.platform.launchers import short
from workflows.cluster.roles import Shares
from workflows.driver import lent
from workflows.driver.feeders import SOON, Feeders
from workflows.driver.job_nodes import Changes, JobNodes
from workflows.plan import Node

POLL_S, PATIENCE_S = 1.0, 10.0
COMING_S = 300.0  # between a block's start and its last manager
LOST_S = 30.0  # beyond Parsl's heartbeat; a manager that was killed is started again sooner


class Granted(Exception):
    """No fault: the nodes that a training task waited for are there."""


class Lending:
    """The nodes of one job. `rests(host)` says whether one had better train nothing for a while, `made(stage, key)` whether there is
    nothing to be made; `say` tells what changes hands.
    """

    def __init__(
        self,
        shares: Shares,
        folder: Path,
        rests: Callable[[str], bool],
        made: Callable[[str, str], object],
        say: Callable[[str], None],
    ) -> None:
        self.folder, self.made, self.say = folder, made, say
        self.nodes = JobNodes(shares, rests)
        self._changed, self._over = threading.Condition(), False
        self._waiting: dict[int, Future] = {}  # training task -> what it waits for, the first first
        self._keys: dict[int, str] = {}  # of training tasks that wait for nodes or have some
        self._told: set[int] = set()  # tasks that know their nodes
        self._silent: dict[str, float] = {}  # nodes of training whose workers of inference are gone, since when
        self._feeders, self._soon, self._reckoned = Feeders((), lambda node: False), 0.0, 0
        self._playing: Any = None  # the executor of inference
        self._heard: dict[str, float] = {}  # tasks at work by host, when managers were last asked
        self._coming = set(map(short, shares.playing))  # hosts of which no manager was heard yet
        self._since = time.monotonic()  # when none was heard of any
        self._written: list[str] = []  # nodes that the interchange knows to be lent
        self._thread = threading.Thread(target=self._give_out, name="lending", daemon=True)

    def govern(self, executors: Iterable[Any], plan: Iterable[Node]) -> None:
        """For a plan, on executors that are not started yet."""
        self._feeders = Feeders(plan, lambda node: _wants_nodes(node.stage.name, node.options))
        for executor in executors:
            if executor.label == "inference" and hasattr(executor, "manager_selector"):
                self._playing = executor
                self._soon = SOON * len(self.nodes.shares.playing) * executor.max_workers_per_node
                executor.manager_selector = lent.NotLent(self._file, executor.manager_selector)

    def start(self) -> None:
        """From here on nodes are given out. The executors are up: an interchange that never comes up would never answer."""
        self._thread.start()

    def close(self) -> None:
        """The executors may end then: nobody is just asking them for their managers."""
        with self._changed:
            self._over = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(PATIENCE_S)

    def before(self, task: Mapping[str, Any]) -> Future | None:
        """What a task has to wait for before it is launched; None where it has its nodes, or wants none."""
        number, call = task["id"], task["kwargs"]
        if not _wants_nodes(call["stage"], call["rest"].arguments["options"]) or self.made(call["stage"], call["key"]):
            return None
        with self._changed:
            if number in self.nodes.has and number not in self._told:
                self._told.add(number)
                stages.tell(task, hostfile=str(self._told_in(number)))
                return None
            self._let_go(number)  # of an attempt that failed
            self._keys[number], self._waiting[number] = call["key"], (granted := Future())
            self._changed.notify()
        return granted

    def ended(self, task: Mapping[str, Any]) -> None:
        """A task is over, however it ended; also one that was never launched, as what it waited for had failed."""
        number, key = task["id"], task["kwargs"]["key"]
        with self._changed:
            self._feeders.ended(key)
            self._waiting.pop(number, None)
            self._keys.pop(number, None)
            self._let_go(number)
            if len(self._wanted()) != self._reckoned:  # of thousands of plays few matter
                self._changed.notify()

    def _let_go(self, number: int) -> None:
        self._told.discard(number)
        self.nodes.let_go(number)

    def _give_out(self) -> None:
        while not self._over:
            busy = self._busy()
            with self._changed:
                granted, end = self._next(busy)
                if not granted and not self._over:
                    self._changed.wait(POLL_S if self.nodes.emptying or self._waiting else self._patience())
            for future in granted:
                if future.set_running_or_notify_cancel():
                    future.set_exception(end)  # Parsl then asks `before` again

    def _next(self, busy: Mapping[str, float]) -> tuple[list[Future], Exception]:
        """Who need not wait any longer, and what to tell them."""
        try:
            given, end = self._step(busy).granted, Granted()
            self._miss(busy)
        except Exception as error:  # a full disk, perhaps; whatever it is, nobody is to wait for ever
            given, end = list(self._waiting), error
        return [self._waiting.pop(number) for number in given if number in self._waiting], end

    def _patience(self) -> float | None:
        """Seconds until the next look where nothing is waited for; None where none is wanted."""
        return LOST_S / 3 if self.nodes.lent else None

    def _miss(self, busy: Mapping[str, float]) -> None:
        """Ends attempts of which a node is gone, as its workers have been for a while: their launcher might wait for ever."""
        silent, now = self.nodes.silent(busy), time.monotonic()
        self._silent = {host: self._silent.get(host, now) for host in silent}
        for host, since in self._silent.items():
            gone = Path(f"{self._hostfile(silent[host])}{mpi.GONE}")
            if now - since >= LOST_S and not gone.exists():
                gone.write_text(f"{host}\n", encoding="utf-8")

    def _step(self, busy: Mapping[str, float]) -> Changes:
        self._reckoned = len(self._wanted())
        changes = self.nodes.step(busy, list(self._waiting), self._reckoned)
        if self._written != (now := self.nodes.lent):  # also where nodes were lost
            lent.write(self._file, now)
            self._written = now
        if changes.lent or changes.returned:
            if changes.lent and busy and not self.nodes.known(busy):
                self.say(
                    f"inference is at work on {', '.join(sorted(busy)[:4])}, no hosts of this job: none is waited for"
                )
            self.say(
                "; ".join(filter(None, (_told("lent to training", changes.lent), _told("back", changes.returned))))
            )
        return changes

    def _wanted(self) -> set[str]:
        """Training tasks that have nodes, wait for some or soon will."""
        return self._feeders.soon(self._soon) | set(self._keys.values())

    def _busy(self) -> Mapping[str, float]:
        """Tasks at work by host, of managers that are connected. A manager bears the name of its host (apps/platform/tether.py).

        Managers of a block come one by one, over minutes where there are many: for COMING_S they are not taken for lost.
        """
        with suppress(Exception):  # an interchange that has died: interchange.py ends the run
            found: Counter[str] = Counter()
            for manager in self._playing.connected_managers() if self._playing else ():
                if manager["active"]:
                    found[short(manager["manager"].rpartition("-")[0])] += manager["tasks"]
            now, some = time.monotonic(), self.nodes.known(found)
            if not some:
                self._coming, self._since = set(map(short, self.nodes.shares.playing)), now
            self._coming = self._coming.difference(found) if now < self._since + COMING_S else set()
            self._heard = {**dict.fromkeys(self._coming if some else (), math.inf), **found}
        return self._heard

    def _told_in(self, number: int) -> Path:
        """The nodes of a task, for the launcher of its ranks."""
        hostfile = self._hostfile(number)
        hostfile.parent.mkdir(parents=True, exist_ok=True)
        Path(f"{hostfile}{mpi.GONE}").unlink(missing_ok=True)  # of an attempt before this one
        hostfile.write_text("".join(f"{host}\n" for host in self.nodes.has[number]), encoding="utf-8")
        return hostfile

    def _hostfile(self, number: int) -> Path:
        return self.folder / f"slot-{number}.hosts"

    @property
    def _file(self) -> Path:
        return self.folder / "inference.lent.json"


def _wants_nodes(stage: str, options: Mapping[str, Any]) -> bool:
    """Whether a task starts ranks."""
    return stage == stages.TRAIN.name and options["training"].get("ranks", 1) > 1


def _told(what: str, hosts: list[str]) -> str:
    few = ", ".join(map(short, hosts[:4])) + (", …" if len(hosts) > 4 else "")
    return f"{len(hosts)} node{'s' * (len(hosts) > 1)} {what}: {few}" if hosts else ""
