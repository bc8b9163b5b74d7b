"""Studies as a user carries them out, a process each time: what fails alone, what is shared, what goes on."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
import yaml

from tests import command
from tests.checkout import made, wait_for
from tests.command import run

BASE = {
    "engine.name": "scripted",
    "rounds": 1,
    "tasks": {"name": "arithmetic", "train": 40, "validation": 20, "test": 20},
    "rollout": {"tasks": 4, "samples": 4},
    "evaluation": {"tasks": 20, "samples": 2, "validation_tasks": 8, "shown_tasks": 2},
}
BROKEN = '''"""Credit that goes wrong where a file says so."""
from pathlib import Path
from apps import records
from apps.credit.uniform import assign as uniform, Options as Uniform
class Options(records.Options):
    """Nothing."""
def asks(options):
    return False
def assign(group, options):
    if Path(__file__).with_name("broken").exists():
        raise ValueError("it went wrong")
    return uniform(group, Uniform())
'''
CREDIT = {"ours": {"credit.name": "local"}, "theirs": {"credit.name": "theirs.py"}, "plain": {"credit.name": "uniform"}}


def write(folder: Path, **sections) -> None:
    (folder / "study.yaml").write_text(yaml.safe_dump({"base": BASE, **sections}, sort_keys=False))
    (folder / "theirs.py").write_text(BROKEN)


def rows(folder: Path, name: str = "runs") -> dict[str, dict[str, str]]:
    table = list(csv.DictReader((folder / "runs" / "study" / f"{name}.csv").open()))
    return {row["name" if name == "runs" else "configuration"]: row for row in table}


@pytest.fixture(scope="module")
def failed(tmp_path_factory):
    """A study of three runs, one of which fails, as it ended; then the same again once it was mended."""
    folder = tmp_path_factory.mktemp("study")
    write(folder, list=CREDIT)
    (folder / "broken").touch()
    planned = run(folder, "--manifest", "study.yaml", "--dry-run")
    assert not (folder / "store").exists() and not (folder / "runs").exists()
    ended = run(folder, "--manifest", "study.yaml")
    table, summary = rows(folder), json.loads((folder / "runs" / "study" / "summary.json").read_text())
    before = made(folder)
    (folder / "broken").unlink()
    mended = run(folder.parent, "--resume", f"runs={folder / 'runs'}", "name=study")
    return folder, planned, ended, table, summary, before, mended


def test_a_run_that_fails_stops_no_other(failed):
    _, _, ended, table, summary, _, _ = failed
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert {name: row["state"] for name, row in table.items()} == {
        "ours": "finished",
        "theirs": "failed",
        "plain": "finished",
    }
    assert table["theirs"]["reason"] == "assign: ValueError: it went wrong" and not table["theirs"]["validation"]
    assert "1 of 3 runs failed:\n  theirs: assign: ValueError: it went wrong" in ended.stdout
    assert "Traceback" not in ended.stdout + ended.stderr
    use = summary.pop("use")
    assert summary == {"state": "failed", "error": "1 of 3 runs failed: theirs"}
    assert 0 < use["share"] <= 1 and use["unit"] == "cores"


def test_a_study_tells_how_busy_it_kept_its_machine(failed):
    folder, _, _, _, _, before, _ = failed
    study = folder / "runs" / "study"
    tasks = json.loads((study / "work.json").read_text())["tasks"]
    assert len({task["key"] for task in tasks}) == len(tasks) >= len(before)
    assert 'id="figure-timeline"' in (study / "sweep.html").read_text()


def test_once_mended_just_the_rest_is_made(failed):
    folder, _, _, _, _, before, mended = failed
    assert mended.returncode == 0, mended.stdout + mended.stderr
    after = made(folder)
    assert before.items() <= after.items()  # nothing was made again
    new = [name.split("/")[0] for name in set(after) - set(before)]
    assert sorted(new) == ["assign", "assign", "assign", "report", "sweep"]
    assert {row["state"] for row in rows(folder).values()} == {"finished"}


def test_a_dry_run_counts_what_is_made_in_the_end(failed):
    """But for the tables of the first try, which told of a failure."""
    folder, planned, *_ = failed
    assert re.search(r"^runs: 3$", planned.stdout, re.M)
    distinct = int(re.search(r"^distinct tasks: (\d+) ", planned.stdout, re.M)[1])
    assert distinct == len(made(folder)) - 1
    again = run(folder, "--manifest", "study.yaml", "--dry-run").stdout
    assert re.search(rf"^all +\d+ +{distinct} +{distinct}$", again, re.M)


def test_every_run_has_its_folder_and_can_be_looked_into(failed):
    folder = failed[0]
    study = folder / "runs" / "study"
    assert {f.name for f in study.glob("*.*")} >= {
        "sweep.csv",
        "sweep.parquet",
        "sweep.html",
        "best.yaml",
        "manifest.yaml",
    }
    for name in CREDIT:
        assert {"report.html", "summary.json", "config.yaml"} <= {f.name for f in (study / name).iterdir()}
    told = run(folder, "trace", "study/ours", "arithmetic")
    assert told.returncode == 0 and "solver" in told.stdout
    assert os.readlink(folder / "runs" / "latest") == "study"


def test_the_best_configuration_is_one_that_can_be_run(failed):
    folder = failed[0]
    best = (folder / "runs" / "study" / "best.yaml").read_text()
    table = rows(folder, "sweep")
    (chosen,) = [name for name, row in table.items() if row["best"] == "True"]
    assert float(table[chosen]["validation"]) == max(float(row["validation"]) for row in table.values())
    assert best.startswith(f"# {chosen}: the best of study by mean accuracy on validation tasks")
    planned = run(folder, "--config", "runs/study/best.yaml", "name=again", "--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert re.search(r"^all +(\d+) +\d+$", planned.stdout, re.M)
    assert re.search(r"^rollout +(\d+) +\1$", planned.stdout, re.M), "its plays are those of the study"


def test_two_runs_are_compared_on_the_same_tasks(failed):
    told = run(failed[0], "compare", "study/ours", "study/plain")
    assert told.returncode == 0, told.stderr
    assert re.search(r"^team accuracy +0\.\d{3} +0\.\d{3} +\+0\.000 \[\+0\.000, \+0\.000\] +1 +1$", told.stdout, re.M)
    assert told.stdout.count("critic: balanced accuracy") == 2


def test_different_tasks_are_not_compared(failed, tmp_path):
    folder = failed[0]
    write(tmp_path, list={"few": {"evaluation.tasks": 3}, "many": {}})
    ended = run(tmp_path, "--manifest", "study.yaml", f"store={folder / 'store'}")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    told = run(tmp_path, "compare", "study/few", "study/many")
    assert told.returncode == 2 and "3 test tasks" in told.stderr and "they have 3 in common" in told.stderr
    assert "did you mean 'study/few'?" in run(tmp_path, "compare", "study", "study/many").stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--manifest", "none.yaml"], r"--manifest: there is no file 'none.yaml'"),
        (
            ["--manifest", "study.yaml", "post_train"],
            r"'post_train': with --manifest the workflow is named in the file",
        ),
        (["--manifest", "study.yaml", "credit.name=uniform"], r"credit.name is what study.yaml varies"),
        (["--manifest", "study.yaml", "--site", "locla"], r"did you mean 'local'"),
    ],
)
def test_wrong_words_are_told_and_nothing_is_written(tmp_path, words, message):
    write(tmp_path, grid={"credit.name": ["local", "uniform"]})
    ended = run(tmp_path, *words)
    assert ended.returncode == 2 and re.search(message, ended.stderr), ended.stderr
    assert sorted(f.name for f in tmp_path.iterdir()) == ["study.yaml", "theirs.py"]


@pytest.mark.slow
def test_rungs_are_decided_once_and_gone_on_from(tmp_path):
    """The solver that errs less goes on; a second time all is found, the decision too."""
    solvers = {str(rate): {"engine.solve": rate, "engine.revise": rate} for rate in (0.9, 0.05, 0.6, 0.7)}
    base = {key: value for key, value in BASE.items() if key != "rounds"}
    write(tmp_path, base=base, list=solvers, repeat=2, halving={"rungs": [1, 2]})
    first = run(tmp_path, "--manifest", "study.yaml")
    assert first.returncode == 0, first.stdout + first.stderr
    first_made = made(tmp_path)
    states = {name: row["state"] for name, row in rows(tmp_path).items()}
    assert [states[f"{rate}-seed0"] for rate in (0.9, 0.05, 0.6, 0.7)] == [
        states[f"{r}-seed1"] for r in (0.9, 0.05, 0.6, 0.7)
    ]
    assert (
        states["0.05-seed0"] == "finished"
        and states["0.9-seed0"] == "left out"
        and list(states.values()).count("finished") == 4
    )
    (decision,) = (tmp_path / "store" / "rung").glob("*/*/rung.json")
    found = json.loads(decision.read_text())
    means = {name: sum(scores) / 2 for name, scores in found["scores"].items()}
    assert set(found["kept"]) == set(sorted(means, key=lambda name: -means[name])[:2]) and found["rounds"] == 1
    assert run(tmp_path, "--manifest", "study.yaml").returncode == 0
    assert made(tmp_path) == first_made


@pytest.mark.slow
def test_a_study_that_is_interrupted_goes_on(tmp_path):
    """Also after its driver was killed, which the next one's log says."""
    big = BASE | {"tasks": {"name": "arithmetic", "train": 200, "validation": 20, "test": 20}}
    write(
        tmp_path,
        base=big | {"rollout": {"tasks": 40, "samples": 8, "shards": 20}},
        grid={"credit.name": ["local", "shapley"]},
    )
    process = when_it_has_made(8, tmp_path, "--manifest", "study.yaml")
    os.killpg(process.pid, signal.SIGINT)
    told, _ = process.communicate(timeout=120)
    assert process.returncode == 130 and "Stopped. What is finished is kept" in told, told
    kept, study = made(tmp_path), tmp_path / "runs" / "study"
    assert json.loads((study / "summary.json").read_text()) == {"state": "stopped"}
    assert json.loads((study / "shapley" / "summary.json").read_text())["state"] == "stopped"
    process = when_it_has_made(len(kept) + 2, tmp_path, "--resume", "name=study")
    process.kill()
    process.communicate(timeout=120)
    kept |= made(tmp_path)
    again = run(tmp_path, "--resume", "name=study")
    assert again.returncode == 0, again.stdout + again.stderr
    assert kept.items() <= made(tmp_path).items()
    killed = re.findall(r"the driver before this one was killed: process (\d+) on ", (study / "log.txt").read_text())
    assert killed == [str(process.pid)]


def when_it_has_made(count: int, folder: Path, *words: str) -> subprocess.Popen[str]:
    """The command at work, with more artifacts than so many in the store."""
    process = command.start(folder, *words)
    assert wait_for(lambda: process.poll() is not None or len(made(folder)) > count)
    assert process.poll() is None, process.communicate()[0]
    return process
