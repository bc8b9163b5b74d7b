"""The folder of a run: what is run, how it ended, and what the user looks for in it."""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import IO, Any

from apps import dormant, policies, stages
from apps.platform import environment
from apps.records import Artifact
from workflows import config as configuration
from workflows.cluster import batch
from workflows.driver import deadline
from workflows.plan import Node, Plan

SUMMARY, LOG, JOBS = "summary.json", "log.txt", "jobs.txt"
POLICIES = ("adapters", "models")  # folders with a folder for each agent that was trained
BOOKKEEPING = shutil.ignore_patterns("manifest.json", stages.FACTS)  # of the store


def described(workflow: ModuleType, place: Mapping[str, Any]) -> dict[str, Any]:
    """What `environment.json` says."""
    job = {"job": batch.here()} if batch.here() else {}
    return {"workflow": workflow.__name__.rpartition(".")[2], **place, **job, **environment.describe()}


@contextmanager
def log(folder: Path) -> Iterator[IO[str]]:
    """The run's own log, beside what it prints: a line for each thing that happens, also the warnings of this project."""
    with open(folder / LOG, "a", encoding="utf-8") as stream:
        job = f", job {batch.here()}" if batch.here() else ""
        stream.write(
            f"{datetime.now():%Y-%m-%d %H:%M:%S} begins: process {os.getpid()} on {socket.gethostname()}{job}\n"
        )
        stream.flush()
        handlers = [logging.StreamHandler(stream), logging.StreamHandler()]  # there, and on the screen as ever
        for handler in handlers:
            handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
            logging.getLogger("merit").addHandler(handler)
        try:
            yield stream
        finally:
            for handler in handlers:
                logging.getLogger("merit").removeHandler(handler)


def begin(folder: Path, config: configuration.Run, described: Mapping[str, Any]) -> None:
    """Says what is run, with what and where."""
    write(folder / "environment.json", json.dumps(described, indent=2) + "\n")
    write(folder / "config.yaml", configuration.dump(config))
    ended(folder, "running", None)
    if described.get("job"):
        note_job(folder, described["job"], "began")


def note_job(folder: Path, job: str, what: str) -> None:
    """Adds a line to the list of the batch jobs that carry this run out."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / JOBS, "a", encoding="utf-8") as file:
        file.write(f"{datetime.now():%Y-%m-%d %H:%M:%S} {job} {what}\n")


def jobs(folder: Path) -> list[str]:
    """Their ids, each once, in the order in which they came."""
    file = folder / JOBS
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return list(dict.fromkeys(line.split()[2] for line in lines if len(line.split()) > 2))


def finish(folder: Path, config: configuration.Run, plan: Plan, found: Mapping[str, Artifact]) -> None:
    """Puts what the user looks for into the run's folder: the report, the adapters, and where every artifact lies."""
    for artifact in found.values():
        dormant.folder(Path(artifact.path))
    if "report" in found:
        for name in ("report.html", SUMMARY):
            shutil.copy(Path(found["report"].path) / name, folder / name)
    for study in sorted({"claims", "effects"} & set(found)):
        for name in (f"{study}.json", f"{study}.md"):
            shutil.copy(Path(found[study].path) / name, folder / name)
    if "appraisal" in found:
        members = [Path(found[name].path) for name in found if name.startswith("reward_model")]
        _copy_reward_model(members, folder / "adapter")
        shutil.copy(Path(found["appraisal"].path) / SUMMARY, folder / SUMMARY)
    if "summary" in found:
        shutil.copy(Path(found["summary"].path) / SUMMARY, folder / SUMMARY)
    if "adapter" in found:
        _copy_model(Path(found["adapter"].path), folder / "adapter")
    if "model" in found:
        for target in filter(None, (str(folder / "model"), getattr(config, "export", ""))):
            _copy_model(Path(found["model"].path), Path(target))
    if "team" in found:
        for name in POLICIES:
            shutil.rmtree(folder / name, ignore_errors=True)
        (folder / POLICIES[0]).mkdir()
        for agent, policy in policies.read(Path(found["team"].path)).items():
            if policy.folder:
                shutil.copytree(policy.folder, folder / POLICIES[not policy.adapter] / agent)
    index = [{"stage": n.stage.name, "key": n.key, "round": n.round, "inputs": _keys(n)} for n in plan.nodes.values()]
    write(folder / "artifacts.json", json.dumps(index) + "\n")


def _copy_reward_model(members: list[Path], target: Path) -> None:
    """The adapter; of an ensemble, a folder of them."""
    shutil.rmtree(target, ignore_errors=True)
    for number, member in enumerate(members, 1):
        _copy_model(member, target / str(number) if len(members) > 1 else target)


def copy(source: Path, folder: Path) -> None:
    """The files of an artifact, beside what lies in the folder."""
    shutil.copytree(source, folder, ignore=BOOKKEEPING, dirs_exist_ok=True)


def _copy_model(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(
        source, target, ignore=shutil.ignore_patterns("manifest.json", "metrics.jsonl", "gate.json", stages.FACTS)
    )


def _keys(node: Node) -> dict[str, list[str]]:
    return {name: [given.key for given in nodes] for name, nodes in node.inputs.items()}


@contextmanager
def telling(folder: Path) -> Iterator[None]:
    """Whatever breaks the block off, the run's folder says so at once."""
    try:
        yield
    except BaseException as error:
        broken_off(folder, error)
        raise


def broken_off(folder: Path, error: BaseException, told: bool = False) -> None:
    """The end of a run that did not come to its own; what was said of it first stands. `told` = its log knows why already."""
    if json.loads((folder / SUMMARY).read_text()).get("state") != "running":
        return
    if isinstance(error, deadline.OutOfTime):
        if error.job:
            note_job(folder, error.job, "submitted to go on")
        ended(folder, error.state, error, told)
    elif isinstance(error, (KeyboardInterrupt, SystemExit)):
        ended(folder, "stopped", None)
    else:
        ended(folder, "failed", error)


def ended(folder: Path, state: str, error: BaseException | None, told: bool = False) -> None:
    """Notes how a run stands, in its summary and, but for `running`, in its log; `told` = that knows why already."""
    if state != "running":
        why = f": {error}" if error is not None and str(error) and not told else ""
        with open(folder / LOG, "a", encoding="utf-8") as log:
            log.write(f"{datetime.now():%H:%M:%S} {state}{why}\n")
    file = folder / SUMMARY
    summary = json.loads(file.read_text()) if state == "finished" and file.is_file() else {}
    summary["state"] = state
    if error is not None and str(error):
        summary["error"] = str(error)
    write(file, json.dumps(summary, indent=1) + "\n")


def point_at_latest(folder: Path) -> None:
    latest, aside = folder.parent / "latest", folder.parent / f".latest.{os.getpid()}"
    if folder.name != "latest":
        aside.unlink(missing_ok=True)
        aside.symlink_to(folder.name)
        os.replace(aside, latest)


def write(file: Path, text: str) -> None:
    aside = file.with_name(file.name + ".part")
    try:
        aside.write_text(text, encoding="utf-8")
        os.replace(aside, file)
    except OSError:  # a full disk
        aside.unlink(missing_ok=True)
        raise
