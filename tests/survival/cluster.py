"""Executors at work on the tests' own cluster, in this process, and tasks with trouble for them."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from apps import stages
from apps.stages import Stage
from tests.checkout import wait_for
from tests.survival import trouble
from workflows import sites, store
from workflows.driver import live

SITE = Path(__file__).with_name("site_htex.py")
PATIENCE_S = 90


@dataclass
class Cluster:
    """Executors at work, with the store that they fill and what the run's log says."""

    shelf: store.Store
    said: io.StringIO
    folder: Path  # of the test

    def launch(
        self,
        number: int,
        *troubles: str,
        needs: Sequence[Future] = (),
        machine: dict[str, Any] | None = None,
        stage: Stage = trouble.EFFORT,
        **options: Any,
    ) -> Future:
        """A task; each of the troubles may befall one of its attempts."""
        for name in troubles:
            (self.folder / name).touch()
        options |= {"number": number, "folder": str(self.folder), "troubles": troubles}
        key = store.Store.key(stage.name, str(self.folder), options, [])
        machine = {"own_process": True, **(machine or {})}
        return stages.launch(stage, key, self.shelf.root, options, machine, {"needs": list(needs)})

    def of_test(self, folder: Path) -> Cluster:
        """The same with a folder for another test, and nothing said yet."""
        self.said.truncate(self.said.seek(0))
        return replace(self, folder=folder)

    def waiting(self) -> list[int]:
        """The processes of a task that waits for the test: its own, its worker's, its manager's."""
        file = self.folder / "waiting"
        assert wait_for(file.exists, PATIENCE_S)
        return [int(word) for word in file.read_text().split()]

    def attempts(self, number: int) -> int:
        return len(trouble.attempts(self.folder, number))


def value(future: Future) -> int:
    return int((Path(future.result(PATIENCE_S).path) / "sum.txt").read_text())


def facts(future: Future) -> dict[str, Any]:
    return stages.facts_of(future.result(PATIENCE_S))


@contextlib.contextmanager
def at_work(folder: Path, inference: bool = False, **options: Any) -> Iterator[Cluster]:
    """The executor `cpu`, or `inference`, with real managers, as the options of site_htex.py say; the others are threads."""
    others = f"{'cpu' if inference else 'inference'},training,network"
    site, said = sites.load(str(SITE), threads=others, **options), io.StringIO()
    shelf = store.Store(folder / "store")
    with contextlib.redirect_stdout(said), live.at_work([], shelf, site, folder / "parsl", "survival"):
        yield Cluster(shelf, said, folder)
