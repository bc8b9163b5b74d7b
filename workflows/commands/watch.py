"""The commands that look after a run from wherever its folder is seen: `status`, `tail` and `stop`."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from apps.records import MeritError
from workflows.driver import run_folder, standing
from workflows.driver.standing import Status

Run = Annotated[str, typer.Argument(help="a run's or study's name or folder")]
Runs = Annotated[str, typer.Option(help="folder of the runs")]
OPEN = ("running", "killed", "queued", "goes")  # how states begin that leave the end of the run open
LOOK_S, ASK_S = 0.5, 10.0  # between looks at a log; of silence before it is asked whether the run is still there


def status(run: Run = "latest", runs: Runs = "runs") -> None:
    """Says how a run stands: its state, who drives it, its batch jobs, and where its logs are."""
    folder = standing.folder_of(Path(runs), run)
    rows = standing.told(standing.of(folder, standing.batch_of(folder)))
    width = max(len(what) for what, _ in rows) + 2
    for what, text in rows:
        typer.echo(f"{what:<{width}}{text}")


def tail(
    run: Run = "latest",
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="of the log so far")] = 20,
    follow: Annotated[bool, typer.Option(help="go on until the run has ended")] = True,
    runs: Runs = "runs",
) -> None:
    """Prints a run's log and what is added to it, from job to job; Ctrl-C ends this and not the run."""
    folder = standing.folder_of(Path(runs), run)
    file = folder / run_folder.LOG
    place, heard = file.stat().st_size if file.is_file() else 0, 0.0
    typer.echo("".join(standing.lines(folder, lines)) or f"{folder.name} has said nothing yet\n", nl=False)
    while follow:
        if file.is_file() and file.stat().st_size > place:
            with open(file, encoding="utf-8", errors="replace") as stream:
                stream.seek(place)
                typer.echo(stream.read(), nl=False)
                place, heard = stream.tell(), time.monotonic()
        elif time.monotonic() - heard > ASK_S or _says_over(folder):
            if _over(found := standing.of(folder, standing.batch_of(folder))):
                return typer.echo(f"{found.folder.name}: {found.state}", err=True)
            heard = time.monotonic()
        time.sleep(LOOK_S)


def stop(
    run: Run = "latest",
    wait_s: Annotated[float, typer.Option("--wait", min=0, help="seconds to wait for the end")] = 90,
    runs: Runs = "runs",
) -> None:
    """Stops a run, on this machine or by its batch jobs: what is finished is kept, and nobody goes on with it."""
    folder = standing.folder_of(Path(runs), run)
    batch = standing.batch_of(folder)
    found = standing.of(folder, batch)
    if _over(found):
        return typer.echo(f"{folder.name}: {found.state}; there is nothing to stop")
    here = found.driver is not None and found.driver["host"] == socket.gethostname()
    if not here and not found.waiting:
        driver = found.driver or {"pid": "?", "host": "?"}
        raise MeritError(
            f"{folder.name}: its driver is process {driver['pid']} on {driver['host']}, and no batch job of it is known here: "
            "end it there, with Ctrl-C or kill"
        )
    for job in found.waiting:  # one that waits would go on with the run
        if job.state != "running" or not here:
            batch.delete(job.id)
            typer.echo(f"job {job.id}: deleted")
    if here:
        os.kill(found.driver["pid"], signal.SIGTERM)
        typer.echo(f"process {found.driver['pid']}: asked to end")
    found = _await(lambda: standing.of(folder, batch), wait_s)
    for job in found.waiting:  # submitted in the meantime
        if job.state in ("queued", "held"):
            batch.delete(job.id)
    if found.driver:
        raise MeritError(f"{folder.name}: its driver has not ended after {wait_s:g} s; look with `status`")
    if found.state.partition(" ")[0] in OPEN:
        run_folder.ended(folder, "stopped", None)
    typer.echo(f"{folder.name} is stopped; go on with --resume or by the same command or job")


def _await(look: Callable[[], Status], wait_s: float) -> Status:
    """Until no driver and no running job is left, or the time is over."""
    end = time.monotonic() + wait_s
    while True:
        found = look()
        if not found.driver and not any(job.state in ("running", "ending") for job in found.waiting):
            return found
        if time.monotonic() > end:
            return found
        time.sleep(LOOK_S)


def _says_over(folder: Path) -> bool:
    last = "".join(standing.lines(folder, 3))  # some words may come after it
    return bool(re.search(r"^[\d:]+ (finished|failed|stopped|out of time)\b", last, re.M))


def _over(found: Status) -> bool:
    """Whether nobody works on the run, and nobody will."""
    return found.driver is None and not found.waiting
