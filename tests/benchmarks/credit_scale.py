"""What credit costs at scale: a Markdown table for docs/credit.md. Asserts nothing.

    python tests/benchmarks/credit_scale.py [TRACES] [TURNS]     # default: 10000 traces of 8 turns

The stage `assign` in a process of its own, with values given: methods that ask nothing, and one whose replays are on the
record. And Shapley's value of one table of 12 players, coefficients included.
"""

from __future__ import annotations

import dataclasses
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np

from apps.credit import app, games, results, shapley
from apps.inference import traces
from apps.records import Graded, Group, Outcome, Sampling, Task, Trace, Turn, Verdict
from apps.reward import verdicts
from apps.tasks import app as tasks_app
from tests.benchmarks.figures import Figure

TEAM = ("solver", "critic", "reviser", "verifier")
SAMPLES, PROMPT, COMPLETION = 8, 120, 60  # traces a task, tokens of a turn
METHODS = ({"name": "uniform"}, {"name": "first_error"}, {"name": "local"}, {"name": "shapley", "repeats": 1})


def figures(count: int = 2000, length: int = 8) -> Iterator[Figure]:
    """The same, smaller, for `make bench`."""
    yield Figure("shapley_12_players", milliseconds(12), "ms", remark="every coalition's value given; exact")
    with tempfile.TemporaryDirectory() as folder:
        aside("make", folder, str(count), str(length))
        for section in METHODS:
            row = aside("one", folder, *(f"{k}={v}" for k, v in section.items())).split("|")
            yield Figure(f"assign_{section['name']}", float(row[2]), "s", remark=f"{count} traces of {length} turns")


def main(count: int, length: int) -> None:
    print(f"12 players, exact: {milliseconds(12):.1f} ms\n")
    print(
        f"| `assign`, {count} traces of {length} turns | seconds | of a core | MB at the peak | MB at its start |\n|---|---:|---:|---:|---:|"
    )
    with tempfile.TemporaryDirectory() as folder:
        aside("make", folder, str(count), str(length))  # a child's peak begins with what its parent holds
        for section in METHODS:
            print(aside("one", folder, *(f"{k}={v}" for k, v in section.items())), end="", flush=True)


def aside(*words: str) -> str:
    """What this file says, called with `words` in a process of its own."""
    return subprocess.run([sys.executable, __file__, *words], check=True, capture_output=True, text=True).stdout


def milliseconds(players: int) -> float:
    """The first time, with the coefficients to be worked out."""
    table = np.random.default_rng(0).random(2**players)
    began = time.perf_counter()
    games.shapley(table)
    return 1000 * (time.perf_counter() - began)


def make(folder: Path, count: int, length: int) -> None:
    """The folders of a shard: tasks, rollout, grade, and a replay of every coalition."""
    rng = np.random.default_rng(0)
    for name in ("tasks", "rollout", "grade", "replay"):
        (folder / name).mkdir(parents=True)
    tasks = [Task(f"t{i}", "How many?", "4", "arithmetic", "train") for i in range(-(-count // SAMPLES))]
    lines = [json.dumps(dataclasses.asdict(task)) + "\n" for task in tasks]
    (folder / "tasks" / tasks_app.FILE).write_text("".join(lines))
    played = [trace(rng, tasks[i // SAMPLES].id, i % SAMPLES, length) for i in range(count)]
    traces.write(folder / "rollout" / traces.FILE, played)
    marks = rng.random((count, length + 1)) < 0.5
    graded = [judged(t, row.tolist()) for t, row in zip(played, marks, strict=True)]
    verdicts.write(folder / "grade", graded)
    groups = [Group(task, tuple(graded[i * SAMPLES : (i + 1) * SAMPLES]), TEAM) for i, task in enumerate(tasks)]
    results.write_replays(folder / "replay", {g.task.id: recorded(g, rng) for g in groups})


def trace(rng: np.random.Generator, task: str, sample: int, length: int) -> Trace:
    turns = []
    for i in range(length):
        said = rng.integers(5, 30_000, PROMPT + COMPLETION, dtype=np.int32)
        agent, logprobs = TEAM[i % len(TEAM)], -rng.random(COMPLETION).astype(np.float32)
        texts = (f"What {agent} of {task} sees. " * 12, f"ANSWER: {i}. " * 12)
        path = f"{agent}.{i // len(TEAM)}"
        turns.append(Turn(agent, path, *texts, said[:PROMPT], said[PROMPT:], logprobs, "base", Sampling(), i))
    return Trace(task, str(sample), tuple(turns), turns[-1].text, True)


def judged(played: Trace, right: list[bool]) -> Graded:
    marks = [Verdict(float(mark), str(int(mark)), "as drawn") for mark in right]
    own = [mark if turn.agent != "critic" else None for turn, mark in zip(played.turns, marks[1:], strict=True)]
    return Graded(played, marks[0], tuple(own))


def recorded(group: Group, rng: np.random.Generator) -> dict:
    """What `shapley` asks of a group, answered by chance."""
    asked = next(shapley.assign(group, shapley.Options(repeats=1)))
    return {question: Outcome(float(rng.random() < 0.5), "4", 2, 120) for question in asked}


def one(folder: Path, words: list[str]) -> None:
    """A row of the table: `assign` in this process."""
    section = {key: int(value) if value.isdigit() else value for key, value in (word.split("=") for word in words)}
    inputs = {name: [folder / name] for name in ("tasks", "rollout", "grade")}
    if section["name"] == "shapley":
        inputs["replay"] = [folder / "replay"]
    out, start = folder / section["name"], peak()
    out.mkdir()
    began, worked = time.perf_counter(), time.process_time()
    app.assign(out, inputs, {"credit": section, "topology": {"name": "solve_critique_revise"}})
    seconds = f"{time.perf_counter() - began:.1f} | {time.process_time() - worked:.1f}"  # the machine may be shared
    print(f"| {section['name']} | {seconds} | {peak():.0f} | {start:.0f} |")


def peak() -> float:
    """The most memory that this process held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 ** (2 if sys.platform == "darwin" else 1)


if __name__ == "__main__":
    if sys.argv[1:2] == ["make"]:
        make(Path(sys.argv[2]), *map(int, sys.argv[3:]))
    elif sys.argv[1:2] == ["one"]:
        one(Path(sys.argv[2]), sys.argv[3:])
    else:
        main(*map(int, sys.argv[1:] or (10_000, 8)))
