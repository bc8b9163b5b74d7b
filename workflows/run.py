"""The command.

python workflows/run.py --site local                     post-trains a team
python workflows/run.py pretrain --site local            another workflow: a file in workflows/
python workflows/run.py --config FILE rounds=3 credit.name=uniform
python workflows/run.py list credit                      what there is to choose from
python workflows/run.py trace RUN TASK                   a conversation with verdicts and credit
python workflows/run.py why RUN TASK                     where the credit comes from
python workflows/run.py simulate --nodes 64,512          what a run would take, without running it
python workflows/run.py datasets RUN --kind pairs --out FOLDER   its credit as data for other trainers
python workflows/run.py export RUN --agent critic --merge --out FOLDER   a trained agent as a model
python workflows/run.py preflight --site aurora          which nodes of this job are fit for it
python workflows/run.py stage MODEL --site aurora        copies on every node, read once
python workflows/run.py init --site aurora               asks what a run needs, writes its configuration and its job
python workflows/run.py status|tail|stop RUN             how a run stands, its log, its end; also from a login node
python workflows/run.py store gc                         what of the store no run refers to
python workflows/run.py compare RUN RUN                  two runs on the same held-out tasks, with paired tests
python workflows/run.py --manifest FILE                  a study: many runs as one DAG
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run as a file, Python puts workflows/ first and not the checkout
    sys.path.insert(0, str(ROOT))

import typer

from apps import leaf
from apps.artifacts import FULL
from apps.records import MeritError
from workflows import config as configuration
from workflows import sites
from workflows.commands import ahead, first, look, nodes, tidy, watch
from workflows.plan import Plan

COMMANDS = ("run", "list", "trace", "why", "datasets", "compare", "export", "simulate", "preflight", "stage")
COMMANDS += ("init", "status", "tail", "stop", "store")
app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, no_args_is_help=False)


def workflows() -> list[str]:
    """The files in workflows/ that offer a DAG."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return [f.stem for f in files if "\ndef dag(" in f.read_text(encoding="utf-8")]


def find(name: str) -> ModuleType:
    import importlib

    if name not in workflows():
        raise MeritError(leaf.unknown("workflow", name, [*workflows(), *COMMANDS[1:]]))
    return importlib.import_module(f"workflows.{name}")


@app.command(
    epilog="Other commands: list KIND · trace RUN TASK · why RUN TASK · datasets RUN · compare RUN RUN · export RUN · "
    "simulate · preflight · stage SOURCE · init · status RUN · tail RUN · stop RUN · store gc (each with --help). "
    "A run lives in runs/NAME; run the same command again to go on where it stopped."
)
def run(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[WORKFLOW] [KEY=VALUE]...",
            help="a workflow (default: post_train), then overrides such as rounds=3 or credit.name=uniform",
        ),
    ] = None,
    manifest: Annotated[
        Path | None, typer.Option(help="a YAML file of a study: many runs as one DAG; see docs/sweeps.md")
    ] = None,
    site: Annotated[str, typer.Option(help="where to run: a folder of site/, or a path; default: local")] = "",
    site_option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="an option of the site, such as cores=1; may be repeated"),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="a YAML file of settings; see workflows/configs/")] = None,
    seed: Annotated[int | None, typer.Option(help="of everything that is drawn")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="print the resolved configuration and the DAG, run nothing")
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="go on with the settings and the site of a run: [runs=FOLDER] name=NAME, else the latest"
        ),
    ] = False,
) -> None:
    """Runs a workflow. What is finished is never computed twice."""
    words, site_option = list(words or []), list(site_option or [])
    if manifest or (resume and (manifest := _study(words))):
        return _sweep(manifest, config, words, site, site_option, dry_run, seed, resume)
    name = words.pop(0) if words and "=" not in words[0] else ""
    where: dict[str, str] = {}
    if resume:
        if config:
            raise MeritError("--resume goes on with a run's own settings; leave --config out, or leave --resume out")
        config, kept = _resumed(words)
        name = name or kept.get("workflow", "")
        site_option = site_option or ([] if site else kept.get("site_options", []))  # another site has other options
        site = site or kept.get("site", "")
        where = {"runs": str(config.parent.parent), "name": config.parent.name}
    name, site = name or "post_train", site or "local"
    workflow = find(name)
    settings = configuration.load(workflow.Config, config, words, seed=seed, **where)
    if not settings.name:
        settings = settings.model_copy(update={"name": config.stem if config else name})
    chosen = sites.load(site, **_pairs(site_option))
    plan = Plan()
    results = workflow.dag(settings, plan)
    if dry_run:
        return _print_plan(plan, settings, site)
    from workflows.driver import live

    live.check(plan.nodes.values(), chosen)
    folder = Path(settings.runs).absolute() / settings.name
    command = shlex.join(["python", *sys.argv])
    place = {"site": site, "site_options": site_option}
    with _ending(command):
        live.carry_out(workflow, settings, plan, results, chosen, folder, place)
    _print_result(folder)


looking = (look.trace, look.why, look.datasets, look.compare, look.export, ahead.simulate)
for command in (*looking, nodes.preflight, nodes.stage, first.init, watch.status, watch.tail, watch.stop):
    app.command()(command)
app.add_typer(tidy.store, name="store")


@app.command("list")
def list_(
    kind: Annotated[
        str, typer.Argument(metavar="KIND", help="credit, topologies, objectives, …; none: the kinds")
    ] = "",
) -> None:
    """What there is to choose from, with a line on each."""
    from workflows import chain

    kinds = {**configuration.KINDS, "stages": "", "recipes": "", "sites": "", "workflows": ""}
    if not kind:
        typer.echo("\n".join(kinds))
    elif kind == "sites":
        typer.echo("\n".join(sites.names()))
    elif kind == "workflows":
        look.columns({name: (find(name).__doc__ or "").strip().split("\n")[0] for name in workflows()})
    elif kind == "stages":
        look.columns(chain.told())
    elif kind == "recipes":
        files = sorted((Path(__file__).parent / "configs").glob("*.yaml"))
        look.columns({file.stem: file.read_text(encoding="utf-8").split("\n")[0].lstrip("# ") for file in files})
    elif kind in kinds:
        look.columns({name: leaf.summary(kinds[kind], name) for name in leaf.names(kinds[kind])})
    else:
        raise MeritError(leaf.unknown("list", kind, list(kinds)))


def _study(words: list[str]) -> Path | None:
    """The manifest that a study left in its folder, if --resume means one."""
    file = _meant(words) / "manifest.yaml"
    return file.resolve() if file.is_file() else None


def _sweep(
    manifest: Path,
    config: Path | None,
    words: list[str],
    site: str,
    site_option: list[str],
    dry_run: bool,
    seed: int | None,
    resume: bool,
) -> None:
    """Carries a study out, or counts what there is to do."""
    from workflows.study import sweep

    place: dict[str, Any] = {"site": site or "local", "site_options": site_option}
    fixed: dict[str, Any] = {"seed": seed}
    if resume:
        if config:
            raise MeritError("--resume goes on with a study's own settings; leave --config out, or leave --resume out")
        kept = _go_to(manifest.parent)
        words = [word for word in words if word.partition("=")[0] not in ("runs", "name")]
        place = {"site": site or kept["site"], "site_options": site_option or ([] if site else kept["site_options"])}
        fixed |= {"runs": str(manifest.parent.parent), "name": manifest.parent.name}
    if words and "=" not in words[0]:
        raise MeritError(f"{words[0]!r}: with --manifest the workflow is named in the file, as in workflow: {words[0]}")
    chosen = sites.load(place["site"], **_pairs(place["site_options"]))
    study = sweep.study(manifest, find, config, words, **fixed)
    rungs = sweep.planned(study)
    if dry_run:
        return typer.echo(f"# site: {place['site']}\n{sweep.table(study, rungs)}")
    from workflows.driver import live
    from workflows.study import sweep_live

    live.check([node for member in rungs[0] for node in member.nodes()], chosen)
    with _ending(shlex.join(["python", *sys.argv])):
        ended = sweep_live.carry_out(study, rungs, chosen, place)
    from apps.report import sweep_page

    typer.echo(sweep_page.text(json.loads((study.folder / "sweep.json").read_text())))
    typer.echo(f"\nThe whole story: {study.folder / 'sweep.html'}")
    if ended.faults:
        raise typer.Exit(1)


@contextmanager
def _ending(command: str) -> Iterator[None]:
    """Whatever ends a run, the user is told how to go on."""
    from workflows.driver import deadline

    try:
        yield
    except (KeyboardInterrupt, SystemExit) as stop:
        typer.echo(f"\nStopped. What is finished is kept; go on with:\n  {command}", err=True)
        raise typer.Exit(stop.code if isinstance(stop, SystemExit) else 130) from None
    except deadline.OutOfTime as end:
        if not end.job:  # why, the run has told
            typer.echo(f"\nStopped. What is finished is kept; go on with:\n  {command}", err=True)
        raise typer.Exit(deadline.STATUS) from None
    except MeritError as error:
        typer.echo(f"error: {error}\nWhat is finished is kept; once it is mended, go on with:\n  {command}", err=True)
        raise typer.Exit(1) from None
    except OSError as error:
        full = "the disk is full: " if error.errno in FULL else ""
        typer.echo(f"error: {full}{error}\nOnce that is mended, go on with:\n  {command}", err=True)
        raise typer.Exit(1) from None


def _pairs(words: list[str]) -> dict[str, object]:
    """`key=value` words as a flat mapping."""
    return {key: value for word in words for key, value in configuration.parse_word(word).items()}


def _resumed(words: list[str]) -> tuple[Path, dict[str, Any]]:
    """The settings and the environment of an earlier run. Goes to the folder that it was started in, as its paths do."""
    folder = _meant(words)
    if not (folder / "config.yaml").is_file():
        known = sorted(f.parent.name for f in folder.parent.glob("*/config.yaml"))
        raise MeritError(leaf.unknown("--resume: run", folder.name, known))
    folder = folder.resolve()
    return folder / "config.yaml", _go_to(folder)


def _meant(words: list[str]) -> Path:
    """The folder that --resume means."""
    given = dict(word.split("=", 1) for word in words if "=" in word)
    return Path(given.get("runs", "runs")) / given.get("name", "latest")


def _go_to(folder: Path) -> dict[str, Any]:
    """The environment of an earlier run. Goes to the folder that it was started in, as its paths do."""
    kept = json.loads((folder / "environment.json").read_text())
    if Path(kept["folder"]).is_dir():  # else all was moved, and here is as good a guess as any
        os.chdir(kept["folder"])
    return kept


def _print_plan(plan: Plan, settings: configuration.Run, site: str) -> None:
    from workflows.store import Store

    typer.echo(f"# site: {site}\n{configuration.dump(settings)}")
    counts, done = plan.counts(), plan.finished(Store(settings.store))
    typer.echo(f"{'stage':<14}{'tasks':>7}{'in store':>10}")
    for stage, count in counts.items():
        typer.echo(f"{stage:<14}{count:>7}{done.get(stage, 0):>10}")
    typer.echo(f"{'all':<14}{sum(counts.values()):>7}{sum(done.values()):>10}")


def _print_result(folder: Path) -> None:
    from apps.report import table

    pages = [page for page in sorted(folder.glob("*.md")) if page.name != "README.md"]  # of a study: claims, effects
    typer.echo(pages[0].read_text(encoding="utf-8") if pages else table.table(folder / "summary.json"))
    typer.echo(
        f"\nThe whole story: {folder / 'report.html'}" if (folder / "report.html").is_file() else f"\nResults: {folder}"
    )


def main(arguments: list[str]) -> int:
    """Exit status: 0 done, 1 the run failed, 2 wrong input, 75 the batch job's time was up, 130 interrupted, 143 terminated."""
    if not arguments or arguments[0] not in COMMANDS:
        arguments = ["run", *arguments]
    try:
        app(arguments, prog_name="run.py")
    except MeritError as error:
        typer.echo(f"error: {error}", err=True)
        return 2
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
