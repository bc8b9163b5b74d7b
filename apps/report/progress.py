"""The live display of a run: one block that is kept up to date on a terminal, plain dated lines anywhere else and in its log.

Lines come at most once a stage and round, when the stage is done there, and at least every 30 seconds. What is counted is in
tally.py. Events come from Parsl's threads, so everything takes one lock.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from datetime import datetime
from typing import IO, Any

from apps.report.tally import Tally

EVERY_S = 30.0  # longest silence of the plain lines
NARROW = 60  # columns below which the block has no bars


class Progress:
    """A context manager. `total`: tasks of the whole run by stage, as far as the plan knows them."""

    def __init__(
        self, total: dict[str, int] | None, stream: IO[str], name: str = "", rounds: int = 0, log: IO[str] | None = None
    ) -> None:
        self.tally, self.stream, self.name, self.rounds = Tally(total), stream, name, rounds
        self._lock = threading.RLock()
        self._began = self._spoke = time.monotonic()
        self._reported: set[tuple[str, int]] = set()
        self._live = None
        if is_terminal(stream):
            self._live = self._open()
        self._plain = [s for s in (None if self._live else stream, log) if s is not None]  # where lines go
        self._over = threading.Event()
        self._ticker: threading.Thread | None = None

    def __enter__(self):
        if self._live:
            self._live.start()
        if self._plain:
            self._ticker = threading.Thread(target=self._tick, name="progress", daemon=True)
            self._ticker.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        if self._live:
            self._live.stop()
        if self._ticker:
            self._ticker.join()
            self._line(self.status())

    def expect(self, key: str, stage: str, round: int) -> None:
        """A task that will come."""
        with self._lock:
            self.tally.expect(key, stage, round)

    def event(self, stage: str, key: str, event: str, facts: Mapping[str, Any] | None = None) -> None:
        """A task was found, joined, begun, made or has failed; `facts` are those of its artifact."""
        with self._lock:
            self.tally.event(stage, key, event, facts, time.monotonic())
            number = self.tally.places[key][1]
            done, of = self.tally.finished(stage, number)
            if self._plain and done == of and (stage, number) not in self._reported:
                self._reported.add((stage, number))
                self._line(f"{self._round(number)}: {stage} {done}/{of}{self._news(stage)}")
        if event == "failed":
            self.say(f"{stage} failed ({self._round(number)})")

    def count(self, event: str) -> int:
        """How many tasks came to be by this event: found, joined or made."""
        with self._lock:
            return sum(how == event for how in self.tally.done.values())

    def say(self, text: str) -> None:
        """A line that stays."""
        if self._live:  # not under our lock: rich draws the block under its own, and the block takes ours
            self._console.print(text, markup=False, highlight=False)
        with self._lock:
            self._line(text)

    def status(self) -> str:
        """Where the run stands, in a line."""
        with self._lock:
            counts, now = self.tally.counts().values(), time.monotonic()
            parts = [self._round(self.tally.round), f"{sum(d for d, _ in counts)}/{sum(n for _, n in counts)} tasks"]
            parts += [*self._figures(), f"{clock(now - self._began)} gone"]
            left = self.tally.seconds_left(now)
            return ", ".join(parts + ([f"about {clock(left)} left"] if left else []))

    def _figures(self) -> list[str]:
        found, tally = [], self.tally
        if tally.tokens_per_second:
            found.append(f"{tally.tokens_per_second:,.0f} tokens/s")
        if tally.reward is not None:
            found.append(f"reward {tally.reward:.3f}")
        if tally.accuracy is not None:
            found.append(f"accuracy {tally.accuracy:.3f}")
        return found

    def _news(self, stage: str) -> str:
        """What the end of a stage has to tell."""
        said = {"grade": ("reward", self.tally.reward), "measure": ("accuracy", self.tally.accuracy)}
        name, value = said.get(stage, ("", None))
        return "" if value is None else f", {name} {value:.3f}"

    def _round(self, number: int) -> str:
        of = f"/{self.rounds}" if self.rounds else ""
        return f"round {number}{of}" if number else "before round 1"

    def _line(self, text: str) -> None:
        self._spoke = time.monotonic()
        for stream in self._plain:
            stream.write(f"{datetime.now():%H:%M:%S} {text}\n")
            stream.flush()

    def _tick(self) -> None:
        while not self._over.wait(max(0.05, self._spoke + EVERY_S - time.monotonic())):
            with self._lock:
                if time.monotonic() - self._spoke >= EVERY_S:
                    self._line(self.status())

    def _open(self):
        from rich.console import Console
        from rich.live import Live

        self._console = Console(file=self.stream, force_terminal=True)
        return Live(get_renderable=self._block, console=self._console, refresh_per_second=4)

    def _block(self):
        """The block: a title, a line a stage, the status."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        wide = self._console.width >= NARROW
        with self._lock:
            table = Table.grid(padding=(0, 2))
            for stage, (done, of) in self.tally.counts().items():
                running = sum(self.tally.places[k][0] == stage for k in self.tally.begun if k not in self.tally.done)
                row = [Text(stage, style="" if running else "dim"), Text(f"{done}/{of}", justify="right")]
                table.add_row(*row, *([ProgressBar(of or 1, done, width=24)] if wide else []))
            return Group(*([Text(self.name, style="bold")] if self.name else []), table, Text(self.status()))


def is_terminal(stream: IO[str]) -> bool:
    """Whether a block can be redrawn there."""
    return stream.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")


def clock(seconds: float) -> str:
    """ "0:42", "12:05", "3:00:07"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
