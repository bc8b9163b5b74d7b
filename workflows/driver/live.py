"""Carries a plan out on a site and makes the run's folder of it."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import IO, Any

from apps import artifacts, dormant, stages
from apps.inference import four_bit
from apps.platform import mpi, processes
from apps.records import Artifact, MeritError
from workflows import config as configuration
from workflows import model, sites, store
from workflows.driver import deadline, packing, references, run_folder, usage
from workflows.driver.memoizer import StoreMemoizer
from workflows.plan import Node, Plan


def carry_out(
    workflow: ModuleType,
    config: configuration.Run,
    planned: Plan,
    results: Mapping[str, Node],
    site: sites.Site,
    folder: Path,
    place: Mapping[str, Any],
) -> Path:
    """Runs a workflow to its end; `folder` is filled as it goes. Whatever ends it, `summary.json` says how.

    `planned` is the workflow recorded and `results` what it returned: every key is known, and every fault in what was
    asked for was told, before anything is written. `place`, the site's name and options as they were given, is kept for
    `--resume`.
    """
    nodes = planned.nodes.values()
    folder.mkdir(parents=True, exist_ok=True)
    with store.lock(folder) as killed, terminable(), run_folder.log(folder) as log:
        site, shelf = deadline.in_job(site), store.Store(config.store)
        run_folder.begin(folder, config, run_folder.described(workflow, place))
        run_folder.point_at_latest(folder)  # at once, so that --resume finds a run that was killed
        ending = deadline.Deadline(site, shelf, nodes)
        packed = packing.Packing(shelf.root, folder, config.pack)
        try:
            references.keep(shelf.root, folder, nodes)
            with (
                at_work(nodes, shelf, site, folder / "parsl", config.name, log) as progress,
                packed.beside(),
                run_folder.telling(folder),  # before the site is cleared away, for which there may be no time
            ):
                launch = launcher(shelf, config, site, ending, usage.begin(folder, site))
                say_killed(killed, progress)
                for node in nodes:
                    node.future = launch(node)
                packed.hold(results.values())
                packed.follow(nodes)
                if not _await_all(planned, ending):
                    raise hand_on(folder, ending, nodes, progress)
                found = {name: node.future.result() for name, node in results.items()}
        except BaseException as error:
            run_folder.broken_off(folder, error)
            with suppress(OSError):  # a full disk, perhaps: what broke the run off is to be told
                usage.tell(folder, nodes, shelf.root)
            raise
        run_folder.finish(folder, config, planned, found)
        run_folder.ended(folder, "finished", None)
        usage.tell(folder, nodes, shelf.root)
        packed.let_go(results.values())
        packed.pack()
    return folder


def say_killed(killed: str, progress: Any) -> None:
    """Tells of the driver that had this folder before, as `store.lock` names it; nothing where it let go by itself."""
    if killed:
        progress.say(f"the driver before this one was killed: {killed}; what it has finished is kept")


@contextmanager
def at_work(
    nodes: Collection[Node], shelf: store.Store, site: sites.Site, folder: Path, name: str, log: IO[str] | None = None
) -> Iterator[Any]:
    """The site, ready for tasks; gives the display, which expects `nodes`. `folder` is Parsl's and goes afterwards.

    Not if the run ended badly and its workers are elsewhere: what they said when they did not come up lies there.
    """
    from apps.report.progress import Progress

    counts = Counter(node.stage.name for node in nodes)
    rounds = max((node.round for node in nodes), default=0)
    kept = site.elsewhere
    try:
        with Progress(dict(counts), sys.stdout, name, rounds, log) as progress:
            for node in nodes:
                progress.expect(node.key, node.stage.name, node.round)
            with sites.running(site, folder, StoreMemoizer(shelf, _listener(shelf, progress)), progress.say, nodes):
                yield progress
        kept = False
    finally:
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)


def check(nodes: Collection[Node], site: sites.Site) -> None:
    """MeritError where a task wants what this site has not. To be asked before anything is written."""
    check_ranks(nodes, site)
    check_four_bits(nodes, site)


def check_ranks(nodes: Iterable[Node], site: sites.Site) -> None:
    """MeritError where a task wants several ranks and this site cannot start them."""
    ranks = max((node.options.get("training", {}).get("ranks", 1) for node in nodes), default=1)
    if ranks > 1:
        mpi.check(site.launcher, site.elsewhere)
    if ranks > (room := site.holds.get("training", ranks)):
        raise MeritError(f"training.ranks={ranks}: a training task of site {site.name} has room for {room} ranks")


def check_four_bits(nodes: Iterable[Node], site: sites.Site) -> None:
    """MeritError where a task wants a model in 4 bits and this site's device has no kernels for it."""
    from apps.platform import devices

    sections = [part for node in nodes for part in (node.options.get("engine"), node.options.get("training"))]
    if any(
        section and "nf4" in (section.get("quantise"), (section.get("lora") or {}).get("quantise"))
        for section in sections
    ):
        four_bit.check(site.device if site.elsewhere else devices.pick(site.device))


def launcher(
    shelf: store.Store,
    config: configuration.Run,
    site: sites.Site,
    ending: deadline.Deadline | None = None,
    session: str = "",
) -> Callable[[Node], Future]:
    """Hands a task to the site, with what it has to know of this machine and this job; its inputs were launched before it."""
    from apps.platform import devices

    device = site.device if site.elsewhere or site.device == "cpu" else devices.pick(site.device)
    scripted = getattr(config, "engine", {}).get("name") == "scripted"
    path = str(model.locate(config.model)) if hasattr(config, "model") and not scripted else ""
    places = model.places(config.model_dump(mode="json"))  # of judges and reward models
    threads = {"inference": site.inference_threads, "training": site.training_threads}

    def launch(node: Node) -> Future:
        label = node.stage.label
        machine = {"model": path, "device": device if label in threads else "cpu", "threads": threads.get(label, 1)}
        machine["places"] = places
        machine["launcher"] = site.launcher
        machine["checkpoint_minutes"] = site.checkpoint_minutes
        machine["staging"] = str(site.staging or "")
        if node.lineage:
            machine["partial"] = str(shelf.root / stages.PARTIAL / node.lineage)
        machine["own_process"] = site.own_process or (label == "inference" and site.inference_slots > 1)
        machine["timeout_s"] = site.timeouts_s.get(label)
        machine["grace_s"] = site.grace_s
        machine["session"] = session
        machine |= ending.told(node) if ending else {}
        inputs = {name: [given.future for given in nodes] for name, nodes in node.inputs.items()}
        order = node.number if label in site.ordered else None
        return stages.launch(node.stage, node.key, shelf.root, node.options, machine, inputs, order)

    return launch


def _listener(shelf: store.Store, progress: Any) -> Callable[[str, str, str], None]:
    from apps.report import tally

    def facts_of(stage: str, key: str, event: str) -> dict[str, Any]:
        place = artifacts.locate(shelf.root, stage, key)
        if event != "made" and not (event == "found" and stage in tally.TOLD):
            return {}
        try:
            facts = stages.facts_of(Artifact(stage, key, str(place)))
            return {"seconds": dormant.manifest(place)["seconds"], **facts} if event == "made" else facts
        except (OSError, ValueError, KeyError):  # gone or damaged: who needs the artifact will find that too
            return {}

    def listen(stage: str, key: str, event: str) -> None:
        facts = facts_of(stage, key, event)
        progress.event(stage, key, event, facts)
        if event == "made" and "smaller" in facts:
            sizes = {name: size for name, size in facts["smaller"].items() if name != "because"}
            told = ", ".join(f"{name}={size}" for name, size in sizes.items())
            progress.say(f"{stage} {key[:8]}: memory did not suffice, done with {told} ({facts['smaller']['because']})")

    return listen


def _await_all(plan: Plan, ending: deadline.Deadline) -> bool:
    """Returns when every task is over; False where the job's time did not suffice for all.

    Raises the first fault's own exception, not that of a task that waited for it.
    """
    from parsl.dataflow.errors import DependencyError
    from parsl.executors.errors import BadStateException

    no_fault = (DependencyError, deadline.TooLate)
    futures = {node.future: node for node in plan.nodes.values()}
    waiting, in_time = set(futures), True
    while waiting and not ending.passed():
        done, waiting = wait(waiting, timeout=0.5, return_when=FIRST_EXCEPTION)
        in_time = in_time and not any(isinstance(f.exception(), deadline.TooLate) for f in done)
        failed = [f for f in done if f.exception() and not isinstance(f.exception(), no_fault)]
        if failed:
            node, error = futures[failed[0]], failed[0].exception()
            if isinstance(error, (MeritError, BadStateException)):
                raise MeritError(f"{node.stage.name}: {error}") from error
            raise error
    return in_time and not waiting


LAST_S = 5  # before the end of a job: what is left of the driver then ends by itself, and is not killed


def hand_on(folder: Path, ending: deadline.Deadline, nodes: Collection[Node], progress: Any) -> deadline.OutOfTime:
    """What ends a run whose job ends; the next job is submitted, and the run's folder says so, before anything is cleaned up.

    From here on SIGTERM ends nothing: it only says that the job's time is up. Nor does the driver wait for that: a task in a
    thread cannot be ended, so just before it the driver ends as it is, and with it whatever it started.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    end = ending.hand_on(nodes, progress.count("made"))
    progress.say(str(end))
    run_folder.broken_off(folder, end, told=True)
    last = threading.Timer(ending.left_s() - LAST_S, os._exit, (deadline.STATUS,))
    last.daemon = True
    last.start()
    return end


def first_fault(nodes: Iterable[Node]) -> BaseException | None:
    """The fault of the first task that failed by itself, with its stage; None if none did. All of them are over.

    One that came too late for its job is no fault, and is given as it is where there is none.
    """
    from parsl.dataflow.errors import DependencyError

    late = None
    for node in nodes:
        error = node.future.exception()
        if isinstance(error, deadline.TooLate):
            late = error
        elif error is not None and not isinstance(error, DependencyError):
            kind = "" if isinstance(error, MeritError) else f"{type(error).__name__}: "
            return MeritError(f"{node.stage.name}: {kind}{error}")
    return late


@contextmanager
def terminable():
    """SIGTERM ends the run as Ctrl-C does, with everything cleaned up; at SIGUSR1 training tasks save their work and go on."""

    def stop(number: int, frame: Any) -> None:
        raise SystemExit(143)

    def save(number: int, frame: Any) -> None:
        threading.Thread(target=processes.ask_to_save, daemon=True).start()  # it waits for a lock, a handler must not

    old = {number: signal.signal(number, f) for number, f in ((signal.SIGTERM, stop), (signal.SIGUSR1, save))}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


logging.getLogger("parsl").setLevel(logging.ERROR)
