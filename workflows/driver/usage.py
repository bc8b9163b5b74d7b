"""What a run, or a study, used of its site: the work of the tasks that it made, put into its folder.

`work.json` holds the run's sessions (a driver each) and their tasks. It grows over the sessions of a run that was stopped and gone on
with; a task is asked for by one session, whose id its manifest bears, so that the work of a driver that was killed counts
too. The share of cores or devices at work goes into `summary.json`, the figure into the page. No key knows of any of it.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from apps import artifacts, dormant
from apps.platform import work
from apps.report import timeline
from apps.report.timeline import Session, Span, Use
from workflows import sites
from workflows.driver import run_folder
from workflows.plan import Node

FILE, MARK = "work.json", "<!-- timeline -->"
PAGES = ("report.html", "sweep.html")  # of a run, of a study


def begin(folder: Path, site: sites.Site) -> str:
    """The id of a new session of the run in `folder`."""
    told, session = _read(folder), uuid.uuid4().hex[:12]
    told["sessions"].append(asdict(Session(session, site.capacity, site.unit, dict(site.holds))))
    run_folder.write(folder / FILE, json.dumps(told) + "\n")
    return session


def tell(folder: Path, nodes: Iterable[Node], root: Path) -> Use:
    """Gathers what was made, and puts it where people look. Nothing is told where nothing was made."""
    told = _read(folder)
    sessions = [Session(**session) for session in told["sessions"]]
    known = {span["key"] for span in told["tasks"]}
    told["tasks"] += [task for node in nodes if node.key not in known and (task := _task(node, root, sessions))]
    spans = [Span(**{k: v for k, v in task.items() if k not in ("key", "round")}) for task in told["tasks"]]
    use = timeline.used(sessions, spans)
    told["use"] = {**asdict(use), "share": round(use.share, 4)}
    told["sessions"] = [asdict(session) for session in sessions if any(span.session == session.id for span in spans)]
    run_folder.write(folder / FILE, json.dumps(told) + "\n")
    if spans:
        _into_summary(folder, told["use"])
        _into_report(folder, timeline.drawn(sessions, spans), sentence(use, len(spans)))
    return use


def sentence(use: Use, tasks: int) -> str:
    """For people."""
    return (
        f"From the first task to the last {use.share:.0%} of the {use.unit} were at work: {use.busy_s:,.0f} of {use.offered_s:,.0f} "
        f"{use.unit[:-1]}-seconds in {use.wall_s:,.0f} s, {tasks:,} tasks made. What was found in the store is no work of this run."
    )


def _task(node: Node, root: Path, sessions: list[Session]) -> dict[str, Any] | None:
    """A node's work if one of the sessions asked for it."""
    try:
        found = work.of(dormant.manifest(artifacts.locate(root, node.stage.name, node.key)))
    except (OSError, ValueError, KeyError):  # not made, or gone
        return None
    if found is None or found.session not in {session.id for session in sessions}:
        return None
    span = Span(
        node.stage.name,
        node.stage.label,
        f"{found.host}/{found.worker}",
        found.began,
        found.ended,
        found.cpu_s,
        found.session,
    )
    return {"key": node.key, "round": node.round, **asdict(span)}


def _read(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {"sessions": [], "tasks": []}


def _into_summary(folder: Path, use: dict[str, Any]) -> None:
    file = folder / run_folder.SUMMARY
    if file.is_file():
        summary = json.loads(file.read_text(encoding="utf-8"))
        if summary["state"] in ("finished", "failed"):
            run_folder.write(file, json.dumps({**summary, "use": use}, indent=1) + "\n")


def _into_report(folder: Path, svg: str, said: str) -> None:
    for file in (file for name in PAGES if (file := folder / name).is_file()):
        figure = f'<figure id="figure-timeline" style="max-width: none">{svg}<figcaption>{said}</figcaption></figure>'
        page = file.read_text(encoding="utf-8")
        run_folder.write(file, page.replace(MARK, figure))
