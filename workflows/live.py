"""Carries a plan out on a site and makes the run's folder of it."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from apps import artifacts, policies, stages
from apps.platform import environment, mpi
from apps.records import Artifact, MeritError
from workflows import config as configuration
from workflows import model, sites, store
from workflows.memoizer import StoreMemoizer
from workflows.plan import Node, Plan

SUMMARY = "summary.json"


def carry_out(
    workflow: ModuleType,
    config: configuration.Run,
    planned: Plan,
    site: sites.Site,
    folder: Path,
    place: Mapping[str, Any],
) -> Path:
    """Runs a workflow to its end; `folder` is filled as it goes. Whatever ends it, `summary.json` says how.

    `planned` is the same workflow recorded: every key is known, and every fault in what was asked for was told, before
    anything is written. `place`, the site's name and options as they were given, is kept for `--resume`.
    """
    from apps.report.progress import Progress

    _check_ranks(planned, site)
    folder.mkdir(parents=True, exist_ok=True)
    with store.lock(folder), _terminable():
        _begin(folder, workflow, config, place)
        _point_at_latest(folder)  # at once, so that --resume finds a run that was killed
        shelf = store.Store(config.store)
        rounds = max((node.round for node in planned.nodes.values()), default=0)
        try:
            with Progress(planned.counts(), sys.stdout, config.name, rounds) as progress:
                for node in planned.nodes.values():
                    progress.expect(node.key, node.stage.name, node.round)
                memoizer = StoreMemoizer(shelf, _listener(shelf, progress))
                with sites.running(site, folder / "parsl", memoizer):
                    plan = Plan(_launcher(shelf, config, site))
                    results = workflow.dag(config, plan)
                    _await_all(plan)
                    found = {name: node.future.result() for name, node in results.items()}
        except BaseException as error:
            stopped = isinstance(error, (KeyboardInterrupt, SystemExit))
            _say_how_it_ended(folder, "stopped" if stopped else "failed", None if stopped else error)
            raise
        finally:
            shutil.rmtree(folder / "parsl", ignore_errors=True)
        _finish(folder, config, plan, found)
        _say_how_it_ended(folder, "finished", None)
    return folder


def _check_ranks(planned: Plan, site: sites.Site) -> None:
    """MeritError where a task wants several ranks and this site cannot start them."""
    if any(node.options.get("training", {}).get("ranks", 1) > 1 for node in planned.nodes.values()):
        mpi.check(site.launcher)


def _launcher(shelf: store.Store, config: configuration.Run, site: sites.Site) -> Callable[[Node], Future]:
    from apps.platform import devices

    device = devices.pick(site.device) if site.device != "cpu" else "cpu"
    scripted = getattr(config, "engine", {}).get("name") == "scripted"
    path = str(model.locate(config.model)) if hasattr(config, "model") and not scripted else ""
    places = model.places(config.model_dump(mode="json"))  # of judges and reward models
    threads = {"inference": site.inference_threads, "training": site.training_threads}

    def launch(node: Node) -> Future:
        machine = {"model": path, "device": device, "threads": threads.get(node.stage.label, 1)}
        machine["places"] = places
        machine["launcher"] = site.launcher
        machine["own_process"] = node.stage.label == "inference" and site.inference_slots > 1
        inputs = {name: [given.future for given in nodes] for name, nodes in node.inputs.items()}
        return stages.launch(node.stage, node.key, shelf.root, node.options, machine, inputs)

    return launch


def _listener(shelf: store.Store, progress: Any) -> Callable[[str, str, str], None]:
    def listen(stage: str, key: str, event: str) -> None:
        facts: dict[str, Any] = {}
        place = artifacts.locate(shelf.root, stage, key)
        if event in ("made", "found") and (place / stages.FACTS).is_file():
            facts = stages.facts_of(Artifact(stage, key, str(place)))
            facts.setdefault("seconds", artifacts.manifest(place)["seconds"])
        progress.event(stage, key, event, facts)

    return listen


def _await_all(plan: Plan) -> None:
    """Returns when every task is done; raises the first fault's own exception, not that of a task that waited for it."""
    from parsl.dataflow.errors import DependencyError

    futures = {node.future: node for node in plan.nodes.values()}
    waiting = set(futures)
    while waiting:
        done, waiting = wait(waiting, timeout=0.5, return_when=FIRST_EXCEPTION)
        failed = [f for f in done if f.exception() and not isinstance(f.exception(), DependencyError)]
        if failed:
            node, error = futures[failed[0]], failed[0].exception()
            if isinstance(error, MeritError):
                raise MeritError(f"{node.stage.name}: {error}") from error
            raise error


def _begin(folder: Path, workflow: ModuleType, config: configuration.Run, place: Mapping[str, Any]) -> None:
    name = workflow.__name__.rpartition(".")[2]
    described = {"workflow": name, **place, **environment.describe()}
    _write(folder / "environment.json", json.dumps(described, indent=2) + "\n")
    _write(folder / "config.yaml", configuration.dump(config))
    _say_how_it_ended(folder, "running", None)


def _finish(folder: Path, config: configuration.Run, plan: Plan, found: Mapping[str, Artifact]) -> None:
    """Puts what the user looks for into the run's folder: the report, the adapters, and where every artifact lies."""
    if "report" in found:
        for name in ("report.html", SUMMARY):
            shutil.copy(Path(found["report"].path) / name, folder / name)
    for study in sorted({"claims", "effects"} & set(found)):
        for name in (f"{study}.json", f"{study}.md"):
            shutil.copy(Path(found[study].path) / name, folder / name)
    if "reward_model" in found:
        _copy_model(Path(found["reward_model"].path), folder / "adapter")
        shutil.copy(Path(found["appraisal"].path) / SUMMARY, folder / SUMMARY)
    if "model" in found:
        for target in filter(None, (str(folder / "model"), getattr(config, "export", ""))):
            _copy_model(Path(found["model"].path), Path(target))
    if "team" in found:
        shutil.rmtree(folder / "adapters", ignore_errors=True)
        (folder / "adapters").mkdir()
        for agent, policy in policies.read(Path(found["team"].path)).items():
            if policy.adapter:
                shutil.copytree(policy.adapter, folder / "adapters" / agent)
    index = [{"stage": n.stage.name, "key": n.key, "round": n.round, "inputs": _keys(n)} for n in plan.nodes.values()]
    _write(folder / "artifacts.json", json.dumps(index) + "\n")


def _copy_model(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("manifest.json", stages.FACTS))


def _keys(node: Node) -> dict[str, list[str]]:
    return {name: [given.key for given in nodes] for name, nodes in node.inputs.items()}


def _say_how_it_ended(folder: Path, state: str, error: BaseException | None) -> None:
    file = folder / SUMMARY
    summary = json.loads(file.read_text()) if state == "finished" and file.is_file() else {}
    summary["state"] = state
    if error is not None and str(error):
        summary["error"] = str(error)
    _write(file, json.dumps(summary, indent=1) + "\n")


def _point_at_latest(folder: Path) -> None:
    latest, aside = folder.parent / "latest", folder.parent / f".latest.{os.getpid()}"
    if folder.name != "latest":
        aside.unlink(missing_ok=True)
        aside.symlink_to(folder.name)
        os.replace(aside, latest)


def _write(file: Path, text: str) -> None:
    aside = file.with_name(file.name + ".part")
    try:
        aside.write_text(text, encoding="utf-8")
        os.replace(aside, file)
    except OSError:  # a full disk
        aside.unlink(missing_ok=True)
        raise


@contextmanager
def _terminable():
    """SIGTERM ends the run as Ctrl-C does, with everything cleaned up."""

    def stop(number: int, frame: Any) -> None:
        raise SystemExit(143)

    old = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, old)


logging.getLogger("parsl").setLevel(logging.ERROR)
