"""Carries a study out: run beside run, rung after rung. A run that fails is told of in the table, and the others go on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from apps.evaluation import rung
from apps.records import MeritError
from workflows import config as configuration
from workflows import sites, store
from workflows.driver import deadline, live, packing, references, run_folder, usage
from workflows.plan import Node
from workflows.study.sweep import Member, Study, out_after

MANIFEST = "manifest.yaml"
TICK_S = 0.5  # how long Ctrl-C waits at most


@dataclass(slots=True)
class Ended:
    """How the runs of a study ended, by name."""

    members: dict[str, Member] = field(default_factory=dict)  # as far as each was carried out
    faults: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)  # by a rung, which one


def carry_out(study: Study, rungs: Sequence[Sequence[Member]], site: sites.Site, place: Mapping[str, Any]) -> Ended:
    """Runs them all and puts the tables into the study's folder. `rungs` as `sweep.planned` gives them."""
    first = {node.key: node for member in rungs[0] for node in member.nodes()}
    study.folder.mkdir(parents=True, exist_ok=True)
    with store.lock(study.folder) as killed, live.terminable(), run_folder.log(study.folder) as log:
        site, shelf = deadline.in_job(site), store.Store(study.store)
        described = run_folder.described(study.workflow, place)
        _begin(study, described)
        ending = deadline.Deadline(site, shelf, first.values())
        packed = packing.Packing(shelf.root, study.folder, study.base["pack"])
        packed.expect(first.values())
        try:
            with (
                live.at_work(first.values(), shelf, site, study.folder / ".parsl", study.name, log) as progress,
                packed.beside(),
                run_folder.telling(study.folder),
            ):
                live.say_killed(killed, progress)
                session = usage.begin(study.folder, site)
                driver = _Driver(study, shelf, site, progress, described, ending, packed, session)
                with _told_to_all(driver):
                    ended = driver.rungs(rungs[0])
        except BaseException as error:
            run_folder.broken_off(study.folder, error)
            raise
        run_folder.ended(study.folder, "failed" if ended.faults else "finished", _told(ended))
        usage.tell(study.folder, driver.nodes(), shelf.root)
        packed.pack()
    return ended


class _Driver:
    """What it takes to carry members out, and how they ended."""

    def __init__(
        self,
        study: Study,
        shelf: store.Store,
        site: sites.Site,
        progress: Any,
        described: Mapping[str, Any],
        ending: deadline.Deadline,
        packed: packing.Packing,
        session: str,
    ) -> None:
        self.study, self.shelf, self.site, self.progress, self.described = study, shelf, site, progress, described
        self.ending, self.packed, self.session = ending, packed, session
        self.ended = Ended()
        self.active: list[Member] = []
        self.late: list[Member] = []  # those for which the job's time does not suffice
        self.own: list[Node] = []  # tasks of the study itself

    def rungs(self, members: Sequence[Member]) -> Ended:
        """Rung after rung, then the tables."""
        for number, rounds in enumerate(self.study.rungs):
            self.together(members)
            if number < len(self.study.rungs) - 1:
                members = self.chosen([m for m in members if m.run.name not in self.ended.faults], rounds or 0)
        self.tables()
        return self.ended

    def together(self, members: Sequence[Member]) -> None:
        """As many runs at the same time as the manifest allows; each is settled when it is done.

        Raises OutOfTime where the batch job's time does not suffice for all of them.
        """
        waiting, active = list(members), self.active
        at_once = self.study.sheet.manifest.at_once or len(waiting)
        while waiting or active:
            while waiting and len(active) < at_once:
                active.append(waiting.pop(0))
                self.start(active[-1])
            for member in _over(active, self.ending):
                active.remove(member)
                self.settle(member)
            if self.ending.passed():
                raise self.out_of_time()
        if self.late:
            raise self.out_of_time()

    def out_of_time(self) -> deadline.OutOfTime:
        return live.hand_on(self.study.folder, self.ending, self.nodes(), self.progress)

    def nodes(self) -> list[Node]:
        """All tasks so far, each once."""
        nodes = [node for member in self.ended.members.values() for node in member.nodes()]
        return list({node.key: node for node in (*nodes, *self.own)}.values())

    def start(self, member: Member) -> None:
        """Hands over what is not at work already for another run."""
        self.folder(member).mkdir(exist_ok=True)
        run_folder.begin(self.folder(member), member.config, self.described)
        references.keep(self.shelf.root, self.folder(member), member.nodes())
        self.packed.hold(member.results.values())
        self.launch(member.nodes(), member.config)
        self.ended.members[member.run.name] = member

    def launch(self, nodes: Sequence[Node], config: configuration.Run) -> None:
        launch: Callable | None = None
        for node in nodes:
            if node.future is None:
                launch = launch or live.launcher(self.shelf, config, self.site, self.ending, self.session)
                self.progress.expect(node.key, node.stage.name, node.round)
                node.future = launch(node)
        self.packed.follow(nodes)

    def launch_own(self, node: Node, config: configuration.Run) -> None:
        """A task of the study itself; returns when it is done."""
        self.own.append(node)
        self.packed.hold([node])
        references.keep(self.shelf.root, self.study.folder, self.own)
        self.launch([node], config)
        if isinstance(node.future.exception(), deadline.TooLate):
            raise self.out_of_time()

    def settle(self, member: Member) -> None:
        """What a run leaves: its folder, or why it failed."""
        run, folder = member.run, self.folder(member)
        failed = live.first_fault(member.nodes())
        if isinstance(failed, deadline.TooLate):
            self.late.append(member)
        elif failed is not None:
            self.ended.faults[run.name] = str(failed)
            run_folder.ended(folder, "failed", failed)
            self.progress.say(f"run {run.name} failed: {failed}")
        elif member.whole:
            found = {name: node.future.result() for name, node in member.results.items()}
            run_folder.finish(folder, member.config, member.plan, found)
            run_folder.ended(folder, "finished", None)
        self.packed.let_go(member.results.values())

    def chosen(self, members: Sequence[Member], rounds: int) -> Sequence[Member]:
        """The runs of the next rung, after its decision was made or found."""
        if not members:
            return []
        node = self.study.decide(members, rounds)
        self.launch_own(node, members[0].config)
        decision = rung.read(Path(node.future.result().path))
        out = [member for member in members if member.run.configuration not in decision["kept"]]
        self.ended.left_out |= {member.run.name: out_after(rounds) for member in out}
        for member in out:
            run_folder.ended(self.folder(member), "left out", MeritError(self.ended.left_out[member.run.name]))
        self.progress.say(f"rung of {rounds} rounds: {', '.join(decision['kept'])} go on, of {len(decision['scores'])}")
        following = self.study.rungs[self.study.rungs.index(rounds) + 1]
        alive = [member.run for member in members if member not in out]
        return [self.study.member(run, following) for run in alive]

    def tables(self) -> None:
        """The stage `sweep`, on all that there is of the runs, and its files in the study's folder."""
        ended = self.ended
        node = self.study.tables(list(ended.members.values()), ended.faults, ended.left_out)
        self.launch_own(node, next(iter(ended.members.values())).config)
        run_folder.copy(Path(node.future.result().path), self.study.folder)
        self.best(node)

    def best(self, node: Node) -> None:
        """The configuration that stood best on validation tasks, as a file for --config."""
        file = self.study.folder / "best.yaml"
        file.unlink(missing_ok=True)
        found = json.loads((Path(node.future.result().path) / "sweep.json").read_text())
        if found["best"]:
            member = next(m for m in self.ended.members.values() if m.run.configuration == found["best"])
            settings = member.config.model_dump(mode="json") | {"name": "", "runs": self.study.base["runs"]}
            head = f"# {found['best']}: the best of {self.study.name} by {found['chosen_by']}\n"
            run_folder.write(file, head + configuration.dump(type(member.config)(**settings)))

    def folder(self, member: Member) -> Path:
        return self.study.folder / member.run.name


def _over(active: Sequence[Member], ending: deadline.Deadline) -> list[Member]:
    """Waits until a run is over; those that are. None where the job's time is up."""
    while True:
        pending = {m.run.name: {n.future for n in m.wanted if not n.future.done()} for m in active}
        over = [member for member in active if not pending[member.run.name]]
        if over or ending.passed():
            return over
        wait(set().union(*pending.values()), timeout=TICK_S, return_when=FIRST_COMPLETED)


@contextmanager
def _told_to_all(driver: _Driver) -> Iterator[None]:
    """Where the whole study stops, the folders of the runs that were at work say so."""
    try:
        yield
    except BaseException:
        for member in (*driver.active, *driver.late):
            run_folder.ended(driver.folder(member), "stopped", None)
        raise


def _begin(study: Study, described: Mapping[str, Any]) -> None:
    run_folder.write(study.folder / MANIFEST, study.text())
    run_folder.write(study.folder / "environment.json", json.dumps(dict(described), indent=2) + "\n")
    run_folder.ended(study.folder, "running", None)
    if described.get("job"):
        run_folder.note_job(study.folder, described["job"], "began")
    run_folder.point_at_latest(study.folder)


def _told(ended: Ended) -> MeritError | None:
    if not ended.faults:
        return None
    return MeritError(f"{len(ended.faults)} of {len(ended.members)} runs failed: {', '.join(ended.faults)}")
