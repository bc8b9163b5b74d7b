"""Loads a site: where a run is carried out. Facts about a machine live in `site/<name>/config.py` and only there.

Such a file offers `Options` (like a leaf) and `site(options) -> Site`. It is run by path, since `site/` is no package,
so nothing that it defines can travel to a worker: it only puts together what Parsl and the standard library define.
"""

from __future__ import annotations

import logging
import runpy
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from apps import leaf, records
from apps.platform import processes, tether
from apps.records import MeritError

if TYPE_CHECKING:
    from parsl import Config
    from parsl.dataflow.dflow import DataFlowKernel
    from parsl.dataflow.memoization import Memoizer

    from workflows.cluster.batch import Batch
    from workflows.cluster.roles import Shares
    from workflows.plan import Node

FOLDER = Path(__file__).resolve().parents[1] / "site"
LABELS = ("inference", "training", "cpu", "network")  # what apps/stages.py asks for, by the resource a task needs


@dataclass(frozen=True)
class Site:
    """Where a run is carried out."""

    name: str
    parsl: Callable[[Path, Memoizer | None], Config]  # of (Parsl's folder, memoizer); imports parsl itself
    device: str  # as for devices.pick, which each worker asks for itself: "auto", "cpu", "cuda", "xpu", "mps"
    inference_threads: int  # threads of torch in an inference task
    training_threads: (
        int  # threads of torch in a training task, shared by its ranks: they decide the last bit of its sums
    )
    training_slots: int  # training tasks at the same time
    inference_slots: int = 1  # inference tasks at the same time: one runs in the driver, several in their own processes
    environment: Mapping[str, str] = field(default_factory=dict)  # for subprocesses, on top of the driver's
    launcher: tuple[str, ...] | None = None  # the command that starts MPI ranks, {ranks} filled in; None = no MPI here
    checkpoint_minutes: float = 10  # between the checkpoints of a training task; 0 = at signals alone
    grace_s: float = 30  # what a training task has to save its work when the run is stopped
    shares: Shares | None = None  # which nodes train and which play; None = training's workers have slots of their own
    hosts: tuple[str, ...] = ()  # the nodes that this job has, as the launcher calls them; () = this machine alone
    # the command that starts a plain process on each of them, for preflight: {ranks}, {ppn} and {hostfile} are filled in.
    on_hosts: tuple[str, ...] | None = None  # Unlike `launcher` it leaves each all devices; None = no other machine
    cores: str = ""  # of a node, a group for each rank of the launcher that binds them, as in "1-8:9-16"
    devices_per_node: int = 0  # accelerators that each node is to show; 0 = as many as most nodes have
    staging: Path | None = None  # a node-local folder for copies of models and adapters; None = they are read in place
    capacity: int = 1  # cores, or devices, that tasks share: what the run's utilisation is of
    unit: str = "cores"  # or "devices"
    holds: Mapping[str, int] = field(default_factory=dict)  # devices that a task of an executor holds; empty for cores
    ordered: tuple[str, ...] = ()  # executors whose waiting tasks go by the `priority` in their resource specification
    elsewhere: bool = False  # the workers have a machine or an environment of their own: the driver asks for no device
    own_process: bool = False  # every task runs in a warm process beside its worker, so that it can be killed alone
    timeouts_s: Mapping[str, float] = field(default_factory=dict)  # of a task, by its executor's label; absent = none
    retries: int = 0  # how often a task that the machine let down is tried again
    deadline: float | None = None  # when the batch job that the driver is in ends, in seconds since 1970; None = never
    margin_s: float = 120  # before the deadline all work is over; also what a task takes that nobody has seen yet
    batch: Batch | None = None  # the batch system; None = there is none
    successor: Callable[[], str] | None = None  # submits the job that goes on after this one, and returns its id


def names() -> list[str]:
    """The sites that come with the project."""
    return sorted(file.parent.name for file in FOLDER.glob("*/config.py"))


def options(name_or_path: str) -> type[records.Options]:
    """What may be set of a site."""
    return _offered(name_or_path)["Options"]


def load(name_or_path: str, **options: Any) -> Site:
    """The site of that name, of that `config.py`, or of that folder with a `config.py`."""
    offered = _offered(name_or_path)
    try:
        chosen = offered["Options"](**options)
    except ValidationError as error:
        where = f"site {name_or_path}"
        raise MeritError(leaf.explain(error, where, offered["Options"])) from error
    return offered["site"](chosen)


@contextmanager
def running(
    site: Site,
    folder: Path,
    memoizer: Memoizer | None,
    say: Callable[[str], None] = lambda text: None,
    plan: Collection[Node] = (),
) -> Iterator[DataFlowKernel]:
    """Parsl on `site`, its files in `folder`; `say` tells of tasks that are tried again, and of nodes. `plan` is what is known of the
    tasks that will come. After an exception (Ctrl-C too) nothing further is begun.

    Tasks that wait are cancelled; worker processes are given some seconds to save what can be gone on with, then killed. A
    task in a thread cannot be killed and is waited for.
    """
    import parsl

    from workflows.driver import interchange
    from workflows.driver.lending import Lending
    from workflows.driver.overdue import Overdue
    from workflows.driver.retries import Retries

    config, retries = site.parsl(folder, memoizer), Retries(site.retries, folder, say)
    overdue, lending = Overdue(retries.resting.blame, say), None
    if site.shares and memoizer:
        rests = partial(retries.resting.rests, "training")
        lending = Lending(site.shares, folder, rests, memoizer.store.find, say)
    retries.govern(config, lending)
    overdue.govern(config.executors)
    if lending:
        lending.govern(config.executors, plan)
    with ExitStack() as ending:  # also where Parsl does not come up
        ending.callback(_tie(config, site.grace_s))
        ending.callback(_clean_up)
        for other in filter(None, (lending, overdue)):
            ending.callback(other.close)
        kernel = parsl.load(config)
        ending.callback(interchange.watched(config.executors))
        if lending:
            lending.start()
        try:
            yield kernel
        except BaseException:
            kernel.memoizer.close()
            retries.close()
            overdue.close()
            # tasks that waited are handed to executors that are shut; the library would print a traceback for each
            logging.getLogger("concurrent.futures").disabled = True
            interchange.unheard(config.executors)
            for task in list(kernel.tasks.values()):
                _give_up(task)
            processes.close(site.grace_s)
            raise


def _clean_up() -> None:
    """Ends Parsl, if it has come up."""
    import parsl
    from parsl.errors import NoDataFlowKernelError

    with suppress(NoDataFlowKernelError):
        parsl.dfk().cleanup()
        parsl.clear()


def _tie(config: Config, grace_s: float) -> Callable[[], None]:
    """Has workers elsewhere end with this driver, whatever ends it; the function that lets them go on purpose."""
    elsewhere = [executor for executor in config.executors if hasattr(executor, "launch_cmd")]
    if not elsewhere:
        return lambda: None
    anchor = tether.Anchor()
    for executor in elsewhere:
        command = f"{executor.launch_cmd} --uid {tether.HOST}"  # by which Parsl tells managers apart
        executor.launch_cmd = anchor.tie(command, executor.all_addresses, grace_s)
    return anchor.close


def _give_up(task: Mapping[str, Any]) -> None:
    """Cancels a task that was handed to its executor, also one that is just being handed over by Parsl's own thread.

    That one passed the memoizer before it was closed. Its lock is held until it is launched, and its future noted a
    moment later, where that of an earlier attempt may stand; without the wait it would stay in the queue, and run.
    """
    from parsl.dataflow.states import States

    def launched() -> bool:
        with task["task_launch_lock"]:
            return task["status"] == States.launched and not task["app_fu"].done()

    while launched() and (task["exec_fu"] is None or task["exec_fu"].done()):
        time.sleep(0.001)
    if task["exec_fu"] is not None:
        task["exec_fu"].cancel()


def _offered(name_or_path: str) -> dict[str, Any]:
    """What the file of a site defines."""
    file = _file(name_or_path)
    offered = runpy.run_path(str(file))
    missing = [name for name in ("Options", "site") if name not in offered]
    if missing:
        raise MeritError(f"site {file}: offers no {' and no '.join(missing)}; see {FOLDER / 'local' / 'config.py'}")
    return offered


def _file(name_or_path: str) -> Path:
    if name_or_path in names():
        return FOLDER / name_or_path / "config.py"
    path = Path(name_or_path)
    if path.suffix == ".py" or len(path.parts) > 1:
        file = path if path.suffix == ".py" else path / "config.py"
        if not file.is_file():
            raise MeritError(leaf.no_file("site", file))
        return file
    raise MeritError(leaf.unknown("site", name_or_path, names()))
