"""The command for the first hour on a machine: `init` asks what a run needs, and writes its configuration and its job."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from apps.records import MeritError
from workflows import sites

NAME = r"\w[\w.-]*"  # of a run
ASKED = {  # option of a site -> what it is called
    "account": "project that the job is charged to",
    "queue": "queue",
    "nodes": "nodes",
    "walltime": "walltime of a job, HH:MM:SS",
    "filesystems": "file systems that the job needs",
}


def init(
    site: Annotated[str, typer.Option(help="where it is to run: a folder of site/, or a path")] = "aurora",
    name: Annotated[str, typer.Option(help="of the run, and of both files")] = "",
    account: Annotated[str, typer.Option(help=ASKED["account"])] = "",
    queue: Annotated[str, typer.Option(help=ASKED["queue"])] = "",
    nodes: Annotated[str, typer.Option(help=ASKED["nodes"])] = "",
    walltime: Annotated[str, typer.Option(help=ASKED["walltime"])] = "",
    filesystems: Annotated[str, typer.Option(help=ASKED["filesystems"])] = "",
    model: Annotated[str, typer.Option(help="a local Hugging Face folder, or `embedded`")] = "",
    continuations: Annotated[int, typer.Option(min=0, help="further jobs that may go on with the run")] = 5,
    stage_times: Annotated[
        Path | None, typer.Option(help="how long stages take, for the estimate: a YAML file, see docs/stage_times.yaml")
    ] = None,
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="settings of the run, such as rounds=10")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="ask nothing: what is not given is the default")] = False,
    force: Annotated[bool, typer.Option("--force", help="overwrite files of these names")] = False,
) -> None:
    """Asks for project, queue, nodes, walltime and model; writes NAME.yaml and NAME.pbs, and says what it may cost."""
    from workflows.commands import drafts

    ask = _ask if not yes and sys.stdin.isatty() else _take
    given = {"account": account, "queue": queue, "nodes": nodes, "walltime": walltime, "filesystems": filesystems}
    name = ask("name of the run", name, "first", _name)
    asked = _asked(site, given, ask)
    chosen = _job_of(site, asked)
    model = ask("model: a local Hugging Face folder, or `embedded`", model, "embedded", _model)
    settings = drafts.settings(name, model, list(words or []), chosen.inference_slots)
    config, script = Path(f"{name}.yaml"), Path(f"{name}.pbs")
    if clash := [str(file) for file in (config, script) if file.exists() and not force]:
        raise MeritError(f"{' and '.join(clash)} exist: choose another --name, or --force")
    drafts.check(settings)  # before anything is written
    config.write_text(drafts.configuration_text(settings, site), encoding="utf-8")
    typer.echo(f"\n{config}: the configuration; all that can be set: run.py --config {config} --dry-run")
    if not asked:
        return typer.echo(f"go on with: python workflows/run.py --site {site} --config {config}")
    script.write_text(drafts.job_text(name, site, asked, continuations), encoding="utf-8")
    typer.echo(f"{script}: the job")
    typer.echo("\n".join(drafts.estimate(settings, asked, continuations, stage_times)))
    if drafts.at_home(Path.cwd()):
        typer.echo("note: this folder is in your home; work and submit from a folder of your project instead")
    typer.echo(f"\nNext: qsub {script}\nThen: run.py status {name} · run.py tail {name} · run.py stop {name}")


def _ask(what: str, given: str, default: str, check: Callable[[str], object] = str) -> str:
    """What was given, or what the user answers; asked again until it is right."""
    while True:
        answer = given or typer.prompt(what, default=default or None)
        try:
            check(answer)
            return answer
        except MeritError as error:
            typer.echo(f"  {error}", err=True)
            given = ""


def _take(what: str, given: str, default: str, check: Callable[[str], object] = str) -> str:
    """What was given, or the default, where nobody is to be asked."""
    answer = given or default
    if not answer:
        raise MeritError(f"{what}: there is no default; give it as an option, or leave --yes out to be asked")
    check(answer)
    return answer


def _asked(site: str, given: Mapping[str, str], ask: Callable[..., str]) -> dict[str, str]:
    """The options of the site that say what its jobs are; {} for a site without jobs. The site itself checks them together."""
    fields = sites.options(site).model_fields
    defaults = {option: str(fields[option].default or "") for option in ASKED if option in fields}
    while True:
        found = {option: ask(ASKED[option], given.get(option, ""), default) for option, default in defaults.items()}
        try:
            _job_of(site, found)
            return found
        except MeritError as error:
            if ask is _take:
                raise
            typer.echo(f"  {error}", err=True)
            given, defaults = {}, found


def _job_of(site: str, asked: Mapping[str, str]) -> sites.Site:
    """The site as such a job has it; MeritError where there is no such job."""
    inside = {"where": "job"} if "where" in sites.options(site).model_fields else {}
    return sites.load(site, **asked, **inside)


def _name(answer: str) -> None:
    if not re.fullmatch(NAME, answer):
        raise MeritError(f"name={answer}: letters, digits, _ . and - are expected")


def _model(answer: str) -> Any:
    from workflows import model

    return model.locate(answer)
