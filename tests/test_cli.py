"""The command as a user meets it, a process each time: what it prints, how it ends, and what it leaves behind.

All runs are of scripted agents, so a run takes seconds. What a model adds is tested elsewhere.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from apps import leaf
from tests import checkout, command
from tests.command import SMALL, run
from workflows.config import KINDS

LONG = (
    *SMALL[:2],
    "tasks={name: arithmetic, train: 200, validation: 20, test: 20}",
    "rollout={tasks: 40, samples: 8, shards: 20}",
    SMALL[4],
)
FLAT = '''"""A topology whose role has no prompt."""
from apps import records
from apps.effects import Answer, Ask
DUTIES = {"solver": "solve"}
ROLES = ("solver",)
class Options(records.Options):
    """Nothing."""
def play(task, options):
    return Answer((yield Ask("solver", {"question": task.question})))
'''


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A folder in which a small run was carried out."""
    folder = tmp_path_factory.mktemp("finished")
    ended = run(folder, *SMALL)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (folder / "output.txt").write_text(ended.stdout)
    return folder


def summary(folder: Path, name: str = "post_train") -> dict:
    return json.loads((folder / "runs" / name / "summary.json").read_text())


def artifacts(folder: Path) -> dict[Path, str]:
    """Every finished artifact, packed or not, and its seal, that another making would not have."""
    return {Path("store", name): seal for name, seal in checkout.made(folder).items()}


def counts(shown: str) -> dict[str, tuple[int, int]]:
    """The table of a dry run: stage -> (tasks, in store)."""
    return {row[0]: (int(row[1]), int(row[2])) for row in re.findall(r"^(\w+) +(\d+) +(\d+)$", shown, re.M)}


def complains(ended: subprocess.CompletedProcess[str], message: str, status: int = 2) -> None:
    """One message, the right exit status, no traceback."""
    assert ended.returncode == status, ended.stdout + ended.stderr
    assert re.search(message, ended.stderr), ended.stderr
    assert ended.stderr.count("rror: ") == 1 and "Traceback" not in ended.stderr + ended.stdout


# what it says


@pytest.mark.parametrize("words", [["--help"], [*SMALL, "--dry-run"], ["list", "credit"], ["credit.name=shaply"]])
def test_what_should_answer_at_once_imports_nothing_heavy(tmp_path, words):
    ended = run(tmp_path, *words, PYTHONPROFILEIMPORTTIME="1")
    imported = {
        line.rpartition("|")[2].strip().split(".")[0]
        for line in ended.stderr.splitlines()
        if line.startswith("import time:")
    }
    assert {"typer", "pydantic"} <= imported
    assert not imported & {"torch", "transformers", "peft", "parsl", "datasets", "matplotlib", "h5py", "scipy"}


def test_help_names_every_option_and_the_other_commands(tmp_path):
    told = run(tmp_path, "--help")
    assert told.returncode == 0
    for word in ("--site", "--config", "--seed", "--dry-run", "--resume", "list", "trace", "why", "key=value"):
        assert word in told.stdout.replace("KEY=VALUE", "key=value")


@pytest.mark.parametrize("kind", KINDS)
def test_list_has_a_line_on_each(tmp_path, kind):
    told = run(tmp_path, "list", kind)
    lines = told.stdout.splitlines()
    assert told.returncode == 0 and [line.split()[0] for line in lines] == leaf.names(KINDS[kind])
    assert all(len(line.split(maxsplit=1)[1]) > 20 for line in lines)


def test_list_lists_its_kinds_the_workflows_and_the_sites(tmp_path):
    assert set(run(tmp_path, "list").stdout.split()) == {*KINDS, "stages", "recipes", "sites", "workflows"}
    assert run(tmp_path, "list", "sites").stdout.split() == sorted(
        f.parent.name for f in (command.ROOT / "site").glob("*/config.py")
    )
    stages = {line.split()[0] for line in run(tmp_path, "list", "stages").stdout.splitlines()}
    assert {"cpt", "sft", "distill", "reward_model", "post_train", "star", "grpo", "ppo", "dpo"} <= stages
    assert {line.split()[0] for line in run(tmp_path, "list", "recipes").stdout.splitlines()} >= {"malt", "star"}
    assert {line.split()[0] for line in run(tmp_path, "list", "workflows").stdout.splitlines()} >= {
        "post_train",
        "pretrain",
    }


def test_a_dry_run_counts_what_a_run_then_makes_and_writes_nothing(finished, tmp_path):
    planned = run(tmp_path, *SMALL, "--dry-run")
    assert planned.returncode == 0 and not list(tmp_path.iterdir())
    table = counts(planned.stdout)
    assert table["all"] == (sum(tasks for stage, (tasks, _) in table.items() if stage != "all"), 0)
    assert table["all"][0] == len(artifacts(finished))
    assert counts(run(finished, *SMALL, "--dry-run").stdout)["all"] == (table["all"][0],) * 2


def test_a_dry_run_shows_settings_that_can_be_read_back(tmp_path):
    planned = run(tmp_path, *SMALL, "credit.repeats=3", "--seed", "5", "--dry-run").stdout
    settings = planned.split("\n\nstage")[0]
    assert yaml.safe_load(settings)["credit"] == {"name": "shapley", "repeats": 3}
    (tmp_path / "again.yaml").write_text(settings)
    again = run(tmp_path, "--config", "again.yaml", "--dry-run").stdout
    assert again == planned


@pytest.mark.parametrize("workflow", ["post_train", "pretrain"])
def test_every_workflow_can_be_planned(tmp_path, workflow):
    words = SMALL if workflow == "post_train" else ()
    assert counts(run(tmp_path, workflow, *words, "--dry-run").stdout)["all"][0] > 3


# what a run leaves


def test_a_run_fills_its_folder(finished):
    folder = finished / "runs" / "post_train"
    assert {"config.yaml", "environment.json", "summary.json", "report.html", "artifacts.json", "adapters"} <= set(
        os.listdir(folder)
    )
    assert (finished / "runs" / "latest").resolve() == folder
    found = summary(finished)
    assert found["state"] == "finished" and found["accuracy"]["greedy"]["n"] == 12
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["workflow"] == "post_train" and "rounds=1" in environment["command"]
    assert {"parsl", "torch", "numpy"} <= set(environment["libraries"])
    assert yaml.safe_load((folder / "config.yaml").read_text())["rounds"] == 1
    assert "team, sampled" in (finished / "output.txt").read_text()


def test_without_a_terminal_progress_is_plain_lines(finished):
    lines = (finished / "output.txt").read_text()
    assert "rollout" in lines and "\x1b" not in lines and "\r" not in lines


def test_the_same_again_makes_nothing(finished):
    made, told = artifacts(finished), summary(finished)
    assert run(finished, *SMALL).returncode == 0
    assert artifacts(finished) == made
    assert summary(finished) == told


def test_a_run_tells_how_busy_it_kept_the_cores(finished):
    use, folder = summary(finished)["use"], finished / "runs" / "post_train"
    told = json.loads((folder / "work.json").read_text())
    made = len(json.loads((folder / "artifacts.json").read_text()))
    assert len(told["tasks"]) == made and use["unit"] == "cores" and 0 < use["share"] <= 1
    assert use["busy_s"] == pytest.approx(sum(task["cpu_s"] for task in told["tasks"]))
    page = (folder / "report.html").read_text()
    assert 'id="figure-timeline"' in page and f"{made} tasks made" in page


def test_from_a_finished_run_another_ones_time_is_told(finished):
    ended = run(
        finished,
        "simulate",
        "--measured",
        "post_train",
        "--out",
        "ahead",
        "rollout.shards=4",
        "--site-option",
        "cores=1",
    )
    assert ended.returncode == 0, ended.stderr
    seconds = dict(re.findall(r"^(measured|predicted) .*: ([\d.]+) s, ", ended.stdout, re.M))
    assert float(seconds["predicted"]) > 0 and float(seconds["measured"]) > 0
    ended = run(
        finished,
        "simulate",
        "--stage-times",
        "ahead/stage_times.yaml",
        "--nodes",
        "1",
        "--sharing",
        "measured",
        "--out",
        "ahead",
    )
    assert ended.returncode == 0 and "measured: post_train" in ended.stdout
    complains(run(finished, "simulate", "--measured", "nothing"), "no finished run")
    complains(run(finished, "simulate", "--site-option", "cores=1"), "goes with --measured")


def test_another_credit_method_shares_the_rollouts(finished):
    table = counts(run(finished, *SMALL, "credit.name=uniform", "--dry-run").stdout)
    assert table["rollout"][0] == table["rollout"][1]
    assert table["assign"][1] == 0 and "replay" not in table


def test_another_seed_is_another_run(finished):
    table = counts(run(finished, *SMALL, "--seed", "1", "--dry-run").stdout)
    assert table["rollout"][1] == 0


def test_trace_shows_a_conversation_with_credit(finished):
    told = run(finished, "trace", "latest", "arithmetic")
    assert told.returncode == 0, told.stderr
    for word in ("solver", "critic", "verifier", "ANSWER: ", "VERDICT: ", "credit"):
        assert word in told.stdout
    assert "\x1b" not in told.stdout


def test_why_explains_the_credit_from_replays(finished):
    told = run(finished, "why", "post_train", "arithmetic")
    assert re.search(r"the critic [+−]?\d\.\d\d.*: with it bypassed the team was right in \d of 2 replays", told.stdout)
    assert run(finished, "why", "post_train", "arithmetic", "--when", "1").returncode == 0


def test_trace_and_why_answer_from_any_folder(finished, tmp_path):
    for words in (["trace", "latest", "arithmetic"], ["why", "post_train", "arithmetic"]):
        here = run(finished, *words)
        assert here.returncode == 0 and run(tmp_path, *words, "--runs", str(finished / "runs")).stdout == here.stdout
    by_folder = run(tmp_path, "trace", str(finished / "runs" / "post_train"), "arithmetic")
    assert by_folder.stdout == run(finished, "trace", "latest", "arithmetic").stdout


def test_a_run_that_was_moved_with_its_store_is_found_from_there(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "copy", symlinks=True)
    file = tmp_path / "copy" / "runs" / "post_train" / "environment.json"
    file.write_text(file.read_text().replace(f'"{finished}"', '"/gone"'))
    moved = run(tmp_path / "copy", "trace", "latest", "arithmetic")
    assert moved.returncode == 0 and moved.stdout == run(finished, "trace", "latest", "arithmetic").stdout
    shutil.rmtree(tmp_path / "copy" / "store")
    complains(run(tmp_path / "copy", "trace", "latest", "arithmetic"), r"its store, /gone/store, is not there any more")


# what goes wrong


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["roundz=3"], r"there is no 'roundz'; did you mean 'rounds'\?"),
        (["credit.name=shaply"], r"credit: there is no 'shaply'; did you mean 'shapley'\?"),
        (["--config", "none.yaml"], r"there is no file 'none.yaml'"),
        (["--site", "locla"], r"site: there is no 'locla'; did you mean 'local'\?"),
        (["--site", "my/site"], r"site: no file 'my/site/config.py'"),
        (["tasks.name=jsonl", "tasks.fields.anwser=x"], r"tasks.jsonl.fields: .*'anwser'; did you mean 'answer'\?"),
        (["topology.name=flatt.py"], r"topologies: no file 'flatt.py'; did you mean 'flat.py'\?"),
        (["credit.name=unfinished.py"], r"credit: unfinished.py cannot be imported: .*\(unfinished.py, line 1\)"),
        (["credit.name=needy.py"], r"credit: needy.py cannot be imported: No module named 'no_such_library'"),
        (["post_trian"], r"workflow: there is no 'post_trian'; did you mean 'post_train'\?"),
        (
            ["engine.name=transformers", "model=nowhere"],
            r"model=nowhere: there is no Hugging Face model folder 'nowhere'",
        ),
        (
            ["team.prompts.solvr=hello"],
            r"team.prompts: role of solve_critique_revise: there is no 'solvr'; did you mean 'solver'",
        ),
        (["team.prompts.solver=@none.txt"], r"team.prompts.solver: there is no file 'none.txt'"),
        (
            ["team.prompts.critic='{review}'"],
            r"team.prompts.critic: field: there is no 'review' \(known: question, draft\)",
        ),
        (
            ["tasks={name: gsm8k, path: nowhere}"],
            r"tasks.path=nowhere: there is no such file or folder \(looked for in /",
        ),
        (["tasks={name: gsm8k, path: /nowhere}", "--dry-run"], r"tasks.path=/nowhere: there is no such file or folder"),
        (
            ["tasks={name: jsonl, path: flatt.py}"],
            r"tasks.path=flatt.py: there is no such .*; did you mean 'flat.py'\?",
        ),
        (["engine.name=transformers", "model=nowhere", "--dry-run"], r"model=nowhere: there is no Hugging Face model"),
        (
            ["engine.name=transformers", "training.lora.targets=[q_proj, q_prj]"],
            r"training.lora.targets: layer: there is no 'q_prj'; did you mean 'q_proj'\? \(known: down_proj,",
        ),
        (["topology.name=tooled.py"], r"tools: there is no 'calculatr'; did you mean 'calculator'\?"),
        (["topology.name=flat.py"], r"the role 'solver' has no prompt; set team.prompts.solver"),
        (["verifier.name=exact_numbr"], r"reward: there is no 'exact_numbr'; did you mean 'exact_number'"),
        (["--resume"], r"--resume: run: there is no 'latest'"),
        (["--dry_run"], r"No such option.*--dry-run"),
        (["--seed", "many"], r"Invalid value for .*--seed.*integer"),
    ],
)
def test_wrong_input_is_told_before_anything_is_written(tmp_path, words, message):
    (tmp_path / "flat.py").write_text(FLAT)
    (tmp_path / "tooled.py").write_text(FLAT + 'USES = (("tools", "calculatr"),)\n')
    (tmp_path / "unfinished.py").write_text("def assign(:\n")
    (tmp_path / "needy.py").write_text("import no_such_library\n")
    written = {"flat.py", "tooled.py", "unfinished.py", "needy.py"}
    complains(run(tmp_path, *([] if words[0] == "post_trian" else SMALL), *words), message)
    assert set(os.listdir(tmp_path)) - {"__pycache__"} == written


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["list", "credits"], r"list: there is no 'credits'; did you mean 'credit'\?"),
        (["trace", "post_trian", "arithmetic"], r"there is no 'post_trian'; did you mean 'post_train'\?"),
        (["trace", "post_train", "gsm8k-1"], r"there is no 'gsm8k-1'.*known: arithmetic-test"),
        (["why", "post_train", "arithmetic", "--when", "7"], r"--when: there is no '7' \(known: before, after, 1\)"),
        (["--resume", "name=post_trian"], r"--resume: run: there is no 'post_trian'; did you mean 'post_train'\?"),
    ],
)
def test_wrong_questions_are_answered_with_the_nearest_choice(finished, words, message):
    complains(run(finished, *words), message)


def test_wrong_input_leaves_a_finished_run_as_it_was(finished):
    before = {f: f.read_bytes() for f in (finished / "runs" / "post_train").iterdir() if f.is_file()}
    complains(run(finished, *SMALL, "team.prompts.solvr=hello"), "solvr")
    assert {f: f.read_bytes() for f in (finished / "runs" / "post_train").iterdir() if f.is_file()} == before


def test_data_that_cannot_be_read_fail_the_run_and_are_named(tmp_path):
    (tmp_path / "broken.jsonl").write_text("{no json")
    ended = run(tmp_path, SMALL[0], "tasks={name: gsm8k, path: broken.jsonl}")
    complains(ended, r"tasks: .*broken.jsonl: cannot be read: line 1", status=1)
    assert summary(tmp_path)["state"] == "failed" and "broken.jsonl" in summary(tmp_path)["error"]
    assert not artifacts(tmp_path).keys() - {p for p in artifacts(tmp_path) if p.parts[1] == "base"}


def test_a_damaged_artifact_is_told_set_aside_and_made_again(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "copy", symlinks=True)
    (file, *_) = sorted((tmp_path / "copy" / "store" / "rollout").rglob("traces.h5"))
    contents = bytearray(file.read_bytes())
    contents[len(contents) // 2] ^= 1
    file.write_bytes(contents)
    ended = run(tmp_path / "copy", *SMALL)
    assert ended.returncode == 0 and "Traceback" not in ended.stderr
    assert re.search(
        r"rollout \w+ is damaged: traces.h5 has other contents than were written", ended.stdout + ended.stderr
    )
    assert file.read_bytes() != bytes(contents)
    assert len(os.listdir(tmp_path / "copy" / "store" / "damaged")) == 1
    assert {k: v for k, v in summary(tmp_path / "copy").items() if k != "seconds"} == {
        k: v for k, v in summary(finished).items() if k != "seconds"
    }


@pytest.fixture
def tiny_disk(tmp_path) -> Iterator[Path]:
    """A disk of 300 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(place)], capture_output=True
    )
    if not mounted or mounted.returncode:
        pytest.skip("a disk of its own can be mounted by root alone")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk_is_told_and_the_run_goes_on_once_there_is_room(tiny_disk, tmp_path):
    words = (*SMALL, f"store={tiny_disk}/store")
    complains(run(tmp_path, *words), r"the disk is full: \w+ could not be written into .*run again", status=1)
    assert summary(tmp_path)["state"] == "failed"
    assert not any((tiny_disk / "store" / "tmp").iterdir())  # nothing half-written
    kept = len(list(tiny_disk.rglob("manifest.json")))
    assert kept > 0
    subprocess.run(["mount", "-o", "remount,size=50m", str(tiny_disk)], check=True)
    assert run(tmp_path, *words).returncode == 0
    assert summary(tmp_path)["state"] == "finished"


@pytest.mark.slow
def test_a_full_disk_under_the_runs_folder_is_told_too(tiny_disk, tmp_path):
    (tiny_disk / "ballast").write_bytes(b"x" * 280_000)
    complains(run(tmp_path, *SMALL, f"runs={tiny_disk}/runs"), r"No space left|disk is full", status=1)
    assert not list(tiny_disk.rglob("*.part"))  # nothing half-written


# how it is stopped


def wait_for(folder: Path, count: int, driver: subprocess.Popen[str]) -> None:
    """Until so many artifacts are finished."""
    end = time.monotonic() + 300
    while len(list((folder / "store").glob("rollout/*/*/manifest.json"))) < count:
        assert driver.poll() is None, driver.stdout.read()
        assert time.monotonic() < end
        time.sleep(0.02)


def alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    ("signal_", "status"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_a_run_that_is_stopped_says_how_to_go_on_and_goes_on(tmp_path, signal_, status):
    driver = command.start(tmp_path, *LONG)
    wait_for(tmp_path, 3, driver)
    os.killpg(driver.pid, signal_)
    told, _ = driver.communicate(timeout=300)
    assert driver.returncode == status, told
    assert "Traceback" not in told and not alive(driver.pid)
    assert re.search(r"Stopped\. What is finished is kept; go on with:\n  python .*run.py .*rounds=1", told)
    assert " failed (" not in told  # tasks that were ended with it are no faults
    assert summary(tmp_path) == {"state": "stopped"}
    assert not (tmp_path / "store" / "tmp").exists() or not any((tmp_path / "store" / "tmp").iterdir())
    made = artifacts(tmp_path)
    assert counts(run(tmp_path, *LONG, "--dry-run").stdout)["all"][1] == len(made)
    again = run(tmp_path, "--resume")
    assert again.returncode == 0, again.stdout + again.stderr
    assert summary(tmp_path)["state"] == "finished"
    assert made.items() <= artifacts(tmp_path).items()  # nothing was made twice


def test_a_run_is_resumed_from_any_folder_with_its_own_site_and_paths(finished, tmp_path):
    """Its store, the file of its topology and its site are all named relative to where it was started."""
    start, elsewhere = tmp_path / "start", tmp_path / "else" / "where"
    for folder in (start / "where", elsewhere):
        folder.mkdir(parents=True)
    (start / "flat.py").write_text(FLAT)
    (start / "where" / "config.py").write_text((command.ROOT / "site" / "local" / "config.py").read_text())
    own = ("topology.name=flat.py", "team.prompts.solver='{question}'", "name=mine")
    assert run(start, *SMALL, *own, "--site", "where/config.py", "--site-option", "cores=1").returncode == 0
    made = artifacts(start)
    again = ("--resume", f"runs={os.path.relpath(start / 'runs', elsewhere)}", "name=mine")
    planned = run(elsewhere, *again, "--dry-run").stdout
    assert "# site: where/config.py" in planned
    assert counts(planned)["all"][0] == counts(planned)["all"][1] == len(made)
    assert run(elsewhere, *again).returncode == 0
    assert artifacts(start) == made and not os.listdir(elsewhere)
    environment = json.loads((start / "runs" / "mine" / "environment.json").read_text())
    assert (environment["site"], environment["site_options"]) == ("where/config.py", ["cores=1"])
    assert environment["folder"] == str(start) and "--resume" in environment["command"]


def test_a_resumed_run_takes_a_site_that_is_given_anew(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "copy", symlinks=True)
    file = tmp_path / "copy" / "runs" / "post_train" / "environment.json"
    kept = json.loads(file.read_text())
    file.write_text(json.dumps({**kept, "site": "gone/config.py", "site_options": ["anything=1"]}))
    complains(run(tmp_path / "copy", "--resume"), r"site: no file 'gone/config.py'")
    assert "# site: local" in run(tmp_path / "copy", "--resume", "--site", "local", "--dry-run").stdout
    file.write_text(json.dumps({**kept, "site": "local", "site_options": ["corse=1"]}))
    complains(run(tmp_path / "copy", "--resume"), r"site local: .*'corse'; did you mean 'cores'\?")
    assert run(tmp_path / "copy", "--resume", "--site-option", "cores=1", "--dry-run").returncode == 0


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_with_the_same_figures(tmp_path):
    (tmp_path / "killed").mkdir()
    (tmp_path / "whole").mkdir()
    driver = command.start(tmp_path / "killed", *LONG)
    wait_for(tmp_path / "killed", 5, driver)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    assert summary(tmp_path / "killed")["state"] == "running"  # it had no chance to say otherwise
    assert run(tmp_path / "killed", "--resume").returncode == 0
    assert run(tmp_path / "whole", *LONG).returncode == 0
    one, other = summary(tmp_path / "killed"), summary(tmp_path / "whole")
    timed = ("seconds", "use")
    assert {k: v for k, v in one.items() if k not in timed} == {k: v for k, v in other.items() if k not in timed}
    work = json.loads((tmp_path / "killed" / "runs" / "post_train" / "work.json").read_text())
    assert len(work["sessions"]) == 2  # what the killed driver's tasks did counts too
    assert {task["key"] for task in work["tasks"]} == {path.name for path in artifacts(tmp_path / "killed")}


def test_a_second_driver_of_one_run_is_turned_away(tmp_path):
    driver = command.start(tmp_path, *LONG)
    wait_for(tmp_path, 1, driver)
    second = run(tmp_path, *LONG)
    assert driver.poll() is None
    complains(second, rf"in use by another run: process {driver.pid} ", status=1)
    driver.communicate(timeout=300)
    assert driver.returncode == 0 and summary(tmp_path)["state"] == "finished"


def test_a_reader_that_goes_away_is_no_fault(tmp_path):
    """As in `run.py list credit | head -1`."""
    shown = subprocess.run(
        f"{sys.executable} {command.ROOT}/workflows/run.py list credit | head -c 1",
        shell=True, cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert "Traceback" not in shown.stderr
