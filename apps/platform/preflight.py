"""Which nodes of a job can be reached and can work together: all are asked (probe.py), then sum numbers (all_reduce.py).

A launch over many nodes is spoilt by one that is dead, and which one it was is not told. So those that did not answer are
asked again in smaller parts, in the end alone: who is silent alone is bad. An all-reduce is spoilt likewise, but a node can
pass it alone and fail in company, so there a group that works is made to grow, and who spoils it is bad.

Not here: what is asked of an answer (fitness.py), what a job does with the good nodes, and how processes are started, which
is the site's to say (`on_hosts`).
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from apps.platform import fitness, launchers, mpi, processes
from apps.platform.fitness import Found
from apps.platform.probe import MARK, Answer, Device, Question
from apps.platform.slots import CORES, SLOTS, WORKER

PARTS = 8  # that a group is divided into, and launches at the same time: many more meet the limits of a fast network
FAILURES = 16  # all-reduces that fail, at most, since each that hangs takes its whole time
RANKS_HERE = 2  # of the all-reduce of a machine without accelerators
GRACE_S = 3  # between a launcher's SIGTERM, which it hands on, and its SIGKILL
LINES, QUOTED, WORDS = (
    64,
    8,
    300,
)  # of a launch's output: lines that are kept, and lines and characters that a fault quotes


@dataclass(frozen=True, slots=True)
class Launches:
    """How processes are started on nodes. Launchers' words hold {ranks}, {ppn}, {hostfile}, {cores}, see slots.py."""

    folder: Path  # for files of hosts, which the launchers read
    plain: tuple[str, ...] | None = (
        None  # the launcher of a process that has its node to itself; None = on this machine
    )
    ranks: tuple[str, ...] | None = None  # that of ranks, each with its own device; None = `plain`
    cores: str = ""  # of each rank of a node, "1-8:9-16"
    environment: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 120.0  # of one launch

    def per_node(self, devices: int) -> int:
        """Ranks of the all-reduce: one for each group of cores, else for each accelerator; on CPUs one a node, two here."""
        if self.ranks and self.cores:
            return len(self.cores.split(":"))
        return devices or (1 if self.plain or not self.ranks else RANKS_HERE)

    def words(self, nodes: Sequence[str], ppn: int, program: Sequence[str], over_mpi: bool = False) -> list[str]:
        """The command line that runs `program`, a module and its arguments, `ppn` times on every one of `nodes`."""
        ranks = len(nodes) * ppn
        launcher = (self.ranks or self.plain) if over_mpi else self.plain
        if launcher is None or (self.plain is None and ranks == 1):
            return [sys.executable, "-m", *program]
        python = [sys.executable, *(("-m", "mpi4py") if over_mpi and ranks > 1 else ()), "-m", *program]
        name = f"hosts-{threading.get_ident()}"
        (self.folder / name).write_text("".join(f"{node}\n" for node in nodes), encoding="utf-8")
        cores = self.cores or ":".join(map(str, range(ppn)))
        return [*mpi.starter(launcher, ranks, {SLOTS: str(self.folder), WORKER: name, CORES: cores}), *python]


@dataclass(frozen=True, slots=True)
class Heard:
    """What came of a launch."""

    said: Mapping[int, Mapping[str, Any]]  # by rank: all that it said, and when (`heard`, epoch seconds)
    status: int | None  # of the launcher; None = it took too long
    words: str  # the end of what else was printed, as lines

    @property
    def fault(self) -> str:
        how = "took too long and was ended" if self.status is None else f"ended with status {self.status}"
        quoted = " | ".join(self.words.splitlines()[-QUOTED:])[-WORDS:]
        return f"the launch {how}" + (f": {quoted}" if quoted else "")


def listen(words: Sequence[str], environment: Mapping[str, str], timeout_s: float) -> Heard:
    """Runs a launch and hears its ranks as they speak; it is gone when this returns, with all that it started here."""
    said: dict[int, dict[str, Any]] = {}
    rest: deque[str] = deque(maxlen=LINES)
    launch = subprocess.Popen(
        words,
        env={**processes.variables(1, {}), **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    reader = threading.Thread(target=_hear, args=(launch.stdout, said, rest), daemon=True)
    reader.start()
    status: int | None = None
    try:
        with suppress(subprocess.TimeoutExpired):
            status = launch.wait(timeout_s)
    finally:
        _end(launch)
    reader.join(GRACE_S)  # not for ever: what left the group may hold the pipe
    return Heard(dict(said), status, "\n".join(rest))


def _hear(lines: Iterable[str], said: dict[int, dict[str, Any]], rest: deque[str]) -> None:
    for line in lines:
        _, mark, text = line.partition(MARK)
        try:
            told = json.loads(text) if mark else None
        except ValueError:  # two ranks' lines in one
            told = None
        if told:
            said[told["rank"]] = {**said.get(told["rank"], {}), **told, "heard": time.time()}
        elif line.strip():
            rest.append(line.strip())


def _end(launch: subprocess.Popen[str]) -> None:
    if launch.poll() is None:
        launch.terminate()
        with suppress(subprocess.TimeoutExpired):
            launch.wait(GRACE_S)
    with suppress(ProcessLookupError):
        os.killpg(launch.pid, signal.SIGKILL)
    launch.wait()


# who answers


def ask(nodes: Sequence[str], question: Question, launches: Launches) -> dict[str, Found]:
    """One launch, a process on each of `nodes`: what is found of each."""
    asked = time.time()
    program = ("apps.platform.probe", json.dumps(asdict(question)))
    heard = listen(launches.words(nodes, 1, program), launches.environment, launches.timeout_s)
    found = {node: Found(silence=heard.fault) for node in nodes}
    for rank, said in heard.said.items():
        if "answer" in said:
            answer = read(said["answer"])
            found[_who(answer.host, rank, nodes)] = Found(answer, asked, said["heard"])
        elif rank < len(nodes):
            found[nodes[rank]] = Found(silence=f"it began to answer, came to {said['at']!r}, and {heard.fault}")
    return found


def read(told: Mapping[str, Any]) -> Answer:
    """An answer from its JSON."""
    return Answer(**{**told, "faults": tuple(told["faults"]), "devices": tuple(Device(**d) for d in told["devices"])})


def _who(host: str, rank: int, nodes: Sequence[str]) -> str:
    """By its name where that is one of the nodes', else by its rank: launchers place ranks in the order of hosts."""
    return {launchers.short(node): node for node in nodes}.get(launchers.short(host), nodes[rank % len(nodes)])


def questioned(nodes: Sequence[str], ask: Callable[[Sequence[str]], Mapping[str, Found]]) -> dict[str, Found]:
    """What is found of each node; those that were silent in a group are asked again in smaller ones."""
    found: dict[str, Found] = {}
    groups = [list(nodes)]
    with ThreadPoolExecutor(PARTS) as pool:
        while groups:
            for heard in pool.map(ask, groups):
                found |= heard
            silent = [[node for node in group if not found[node].answer] for group in groups if len(group) > 1]
            groups = [part for group in silent for part in divided(group)]
    return found


def divided(group: Sequence[str]) -> list[list[str]]:
    """At most PARTS parts of like size, none empty."""
    size = -(-len(group) // PARTS)
    return [list(group[start : start + size]) for start in range(0, len(group), size or 1)]


# who sums


def summed(nodes: Sequence[str], kind: str, ppn: int, launches: Launches) -> tuple[str | None, dict[str, Any]]:
    """One all-reduce among all devices of `nodes`: why it fails, None where it does not, and what its first rank says of it."""
    words = launches.words(nodes, ppn, ("apps.platform.all_reduce", kind), over_mpi=True)
    heard = listen(words, launches.environment, launches.timeout_s)
    fault = None if heard.status == 0 else f"all-reduce of {len(nodes)} nodes: {heard.fault}"
    return fault, {name: value for name, value in heard.said.get(0, {}).items() if name not in ("rank", "heard")}


def company(nodes: Sequence[str], attempt: Callable[[Sequence[str]], str | None]) -> tuple[list[str], dict[str, str]]:
    """The nodes that work together, and why the others do not; `attempt` gives why a group fails, None where it works.

    The group grows by parts; a part that spoils it is divided. A node alone does not begin it: it may be the very one with
    which no other works.
    """
    together: list[str] = []
    lone: list[str] = []
    bad: dict[str, str] = {}
    failed, pending = 0, [list(nodes)]

    def tried(group: Sequence[str]) -> str | None:
        nonlocal failed
        fault = attempt(group) if failed < FAILURES else f"not tried, since {failed} groups had failed"
        failed += fault is not None
        return fault

    while pending:
        part = pending.pop(0)
        if len(part) == 1 and not together:
            lone += part
        elif (fault := tried([*together, *part])) is None:
            together += part
        elif len(part) > 1:
            pending[:0] = divided(part)
        else:
            bad[part[0]] = fault
    if not together:
        together += next((pair for pair in itertools.combinations(lone, 2) if tried(pair) is None), ())
    for node in lone:
        if node not in together:
            if fault := tried([*together, node]):
                bad[node] = fault
            else:
                together.append(node)
    return [node for node in nodes if node in together], bad


def bound(nodes: Sequence[str], kind: str, ppn: int, launches: Launches) -> dict[str, str]:
    """Whether ranks meet with `device_id` and without: "works", or the fault. Sources disagree which of them hangs."""
    told = {}
    for name, value in (("without", "0"), ("with", "1")):
        told[name] = summed(nodes, kind, ppn, _set(launches, value))[0] or "works"
    return told


def _set(launches: Launches, value: str) -> Launches:
    return replace(launches, environment={**launches.environment, mpi.DEVICE_ID: value})


# all of it


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a preflight."""

    good: tuple[str, ...]  # in the order in which nodes were given
    bad: Mapping[str, tuple[str, ...]]  # why each of the others is left out
    found: Mapping[str, Found]
    usual: fitness.Usual
    together: Mapping[str, Any]  # of the all-reduce of all that are good: backend, ranks, gbit_s; {} = none
    device_id: Mapping[str, str]  # of `bound`; {} on CPUs, which are not bound


def fly(nodes: Sequence[str], question: Question, wanted: fitness.Wanted, launches: Launches) -> Result:
    """Asks, judges, and lets those that are fit sum numbers."""
    found = questioned(nodes, lambda group: ask(group, question, launches))
    most = fitness.usual(one.answer for one in found.values() if one.answer)
    bad = {node: tuple(faults) for node in nodes if (faults := fitness.faults(found[node], most, wanted))}
    fit = [node for node in nodes if node not in bad]
    if not fit or not question.computes:
        return Result(tuple(fit), bad, found, most, {}, {})
    kind = found[fit[0]].answer.kind
    accelerated = kind in fitness.ACCELERATORS
    ppn = launches.per_node(most.devices if accelerated else 0)
    ways = bound(fit[:2], kind, ppn, launches) if accelerated else {}
    launches = _set(launches, "1") if ways and ways["without"] != "works" == ways["with"] else launches
    told: dict[str, Any] = {}

    def attempt(group: Sequence[str]) -> str | None:
        fault, said = summed(group, kind, ppn, launches)
        told.update(said if fault is None else {})
        return fault

    good, lonely = company(fit, attempt)
    return Result(tuple(good), {**bad, **{node: (why,) for node, why in lonely.items()}}, found, most, told, ways)
