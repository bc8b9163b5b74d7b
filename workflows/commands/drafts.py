"""What `init` writes: a run's configuration, its job, and an estimate of what both may cost. Nothing is submitted here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from workflows import config as configuration
from workflows import post_train
from workflows.cluster import queues
from workflows.config import PostTrain
from workflows.plan import Plan

ROOT = Path(__file__).resolve().parents[2]
JOB = ROOT / "jobs" / "pipeline.pbs"
SHOWN = (
    "model",
    "rounds",
    "tasks",
    "rollout",
    "credit",
    "objective",
    "evaluation",
)  # sections that a first run may change


def settings(name: str, model: str, words: Sequence[str], workers: int) -> PostTrain:
    """A run whose rounds keep so many inference workers busy: a shard for each, of a task or more."""
    given = configuration.load(PostTrain, None, [f"model={model}", *words])
    told = {word.partition("=")[0] for word in words}
    tasks = given.rollout.tasks if "rollout.tasks" in told else max(given.rollout.tasks, workers)
    rollout = {"tasks": tasks} | ({} if "rollout.shards" in told else {"shards": min(tasks, max(2, workers))})
    shards = min(given.evaluation.tasks, given.evaluation.validation_tasks, max(2, workers))
    evaluation = {} if "evaluation.shards" in told else {"shards": shards}
    return given.model_copy(
        update={
            "name": name,
            "rollout": given.rollout.model_copy(update=rollout),
            "evaluation": given.evaluation.model_copy(update=evaluation),
        }
    )


def check(settings: PostTrain) -> None:
    """MeritError for a fault in the settings: a round of the run is planned."""
    post_train.dag(settings.model_copy(update={"rounds": min(1, settings.rounds)}), Plan())


def configuration_text(settings: PostTrain, site: str) -> str:
    shown = {name: value for name, value in settings.model_dump(mode="json").items() if name in SHOWN}
    differing = {
        name: value
        for name, value in settings.model_dump(mode="json", exclude_defaults=True).items()
        if name not in (*SHOWN, "name")
    }
    head = f"# Written by `run.py init --site {site}`. What is not said here has its default: run.py --config FILE --dry-run\n"
    return head + yaml.safe_dump(shown | differing, sort_keys=False, allow_unicode=True)


def job_text(name: str, site: str, asked: Mapping[str, str], continuations: int) -> str:
    """jobs/pipeline.pbs with the directives and options of this run in it."""
    directives = {
        "-N .*": f"-N {name}",
        "-A .*": f"-A {asked['account']}",
        "-q .*": f"-q {asked['queue']}",
        "-l select=.*": f"-l select={asked['nodes']}",
        "-l walltime=.*": f"-l walltime={asked['walltime']}",
        "-l filesystems=.*": f"-l filesystems={asked['filesystems']}",
    }
    text = JOB.read_text(encoding="utf-8")
    for pattern, line in directives.items():
        text, count = re.subn(f"^#PBS {pattern}$", lambda found, line=line: f"#PBS {line}", text, flags=re.M)
        assert count == 1, f"{JOB} has no directive {pattern}"
    own = {
        "MERIT": str(ROOT),
        "SITE": site,
        "CONFIG": f"{name}.yaml",
        "NAME": name,
        "CONTINUATIONS": str(continuations),
    }
    lines = "\n".join(f'export {key}="${{{key}:-{value}}}"' for key, value in own.items())
    place = 'cd "${PBS_O_WORKDIR:-.}" || exit\n'
    assert place in text
    return text.replace(place, f"{place}\n# of this run; qsub -v overrides them\n{lines}\n")


def estimate(settings: PostTrain, asked: Mapping[str, str], continuations: int, stage_times: Path | None) -> list[str]:
    """What the jobs cost at most, and what the run takes if it is known how long stages take."""
    nodes, hours = int(asked["nodes"]), queues.seconds(asked["walltime"]) / 3600
    most = nodes * hours * (1 + continuations)
    lines = [
        f"cost: at most {nodes * hours:,.1f} node-hours a job ({nodes} nodes, {hours:g} h), {most:,.1f} with all "
        f"{continuations} continuations; a run that is through sooner ends its job"
    ]
    if stage_times is None:
        return [
            *lines,
            "What the run itself takes is not known: run jobs/debug.pbs, and give the times of stages (--stage-times FILE, "
            "as docs/stage_times.yaml, whose figures are assumed) for an estimate",
        ]
    from workflows.simulation import forecast, times
    from workflows.simulation.placement import POLICIES

    told = times.read(stage_times)
    shards = {"rollout": settings.rollout.shards, "evaluation": settings.evaluation.shards}
    here = told.model_copy(update={"shards": shards, "rounds": max(1, settings.rounds), "job_hours": hours})
    found = forecast.best(settings, here, nodes, settings.rollout.overlap, POLICIES["measured"])
    lines.append(
        f"estimate: {found.hours:,.1f} h, {found.node_hours:,.0f} node-hours, {found.jobs} jobs; simulated, from stage times that are "
        f"{told.what}"
    )
    if found.jobs > 1 + continuations:
        lines.append(f"That is more than the {1 + continuations} jobs allowed: raise --continuations or the walltime")
    return lines


def at_home(folder: Path) -> bool:
    """Whether a folder is in the user's home, which the nodes of a job should not have to read from."""
    return folder.resolve().is_relative_to(Path.home().resolve())
