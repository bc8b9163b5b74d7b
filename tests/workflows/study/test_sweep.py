"""All runs of a manifest as one DAG: what is counted once, what a longer run shares with a shorter one."""

from __future__ import annotations

from concurrent.futures import Future

import pytest
import yaml

from apps import stages
from apps.records import MeritError
from workflows import run, sites
from workflows.driver.deadline import Deadline
from workflows.study import sweep, sweep_live

SMALL = {  # scripted agents: nothing is trained
    "engine.name": "scripted",
    "rounds": 1,
    "tasks": {"name": "arithmetic", "train": 40, "validation": 20, "test": 20},
    "rollout": {"tasks": 4, "samples": 4},
    "evaluation": {"tasks": 12, "samples": 2, "validation_tasks": 8, "shown_tasks": 2},
}


def study(folder, words=(), base=SMALL, **sections) -> sweep.Study:
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump({"base": base, **sections} if base else sections))
    return sweep.study(file, run.find, None, list(words))


def counted(table: str) -> dict[str, list[int]]:
    return {row.split()[0]: [int(n) for n in row.split()[1:]] for row in table.split("\n\n")[1].splitlines()[1:]}


def test_what_two_credit_methods_share_is_counted_once(tmp_path, monkeypatch):
    """By hand: one team, three splits; plays (in two shards) greedy, sampled, of validation and of training, and those shown."""
    monkeypatch.chdir(tmp_path)
    found = study(tmp_path, grid={"credit.name": ["shapley", "uniform"]})
    table = counted(sweep.table(found, sweep.planned(found)))
    plays = 2 + 2 + 2 + 2 + 1
    assert table["base"] == [2, 1, 0] and table["tasks"] == [6, 3, 0]
    assert table["rollout"] == table["grade"] == [2 * plays, plays, 0]
    assert table["measure"] == [6, 3, 0] and table["replay"] == [3, 3, 0] and table["assign"] == [6, 6, 0]
    assert table["report"] == [2, 2, 0] and table["sweep"] == [1, 1, 0]
    assert table["all"][1] == 1 + 3 + 2 * plays + 3 + 3 + 6 + 2 + 1
    assert not (tmp_path / "store").exists() and not (tmp_path / "runs").exists()


def test_seeds_share_the_team_and_the_tasks_alone(tmp_path):
    found = study(tmp_path, repeat=2)
    first, second = (set(member.plan.nodes) for (member,) in ([m] for m in sweep.planned(found)[0]))
    assert {found.recorded[key].stage for key in first & second} == {stages.BASE, stages.TASKS}


def test_a_study_of_one_run_is_that_run(tmp_path):
    found = study(tmp_path, repeat=[0])
    (member,) = sweep.planned(found)[0]
    alone = sweep.Plan()
    run.find("post_train").dag(member.config, alone)
    assert set(alone.nodes) == set(member.plan.nodes) == {node.key for node in member.nodes()}


def test_a_longer_run_goes_on_from_a_shorter_one(tmp_path):
    """With training: all that leads to the shorter run's last validation is part of the longer one, by key."""
    base = {"rollout": {"tasks": 2}, "evaluation": {"tasks": 4, "validation_tasks": 4, "shown_tasks": 2}}
    found = study(tmp_path, base=base, grid={"training.lr": [1e-3, 2e-3]}, halving={"rungs": [1, 2, 4]})
    rungs = sweep.planned(found)
    assert [len(members) for members in rungs] == [2, 1, 1]
    short, longer, whole = ({node.key for node in members[0].nodes()} for members in rungs)
    assert short < longer < whole
    assert sum(found.recorded[key].stage is stages.TRAIN for key in short) == 4  # one round of four agents
    assert not any(found.recorded[key].options.get("seed") == "0/test" for key in longer)  # no test task is looked at


def test_rungs_keep_one_in_eta(tmp_path):
    found = study(tmp_path, grid={"training.epochs": list(range(1, 10))}, halving={"rungs": [1, 2, 3], "eta": 3})
    assert [len(members) for members in sweep.planned(found)] == [9, 3, 1]
    assert [found.entered(rounds) for rounds in (1, 2, 3)] == [9, 3, 1]


def test_settings_are_laid_over_one_another(tmp_path):
    (tmp_path / "below.yaml").write_text("rounds: 3\ntraining: {lr: 0.5, epochs: 7}\n")
    found = study(tmp_path, ["training.epochs=9"], {"training.lr": 0.25}, config="below.yaml", repeat=[1])
    (member,) = sweep.planned(found)[0]
    assert (member.config.rounds, member.config.training.lr, member.config.training.epochs) == (3, 0.25, 9)
    assert member.config.runs.endswith("runs/study") and member.config.name == "seed1"


def test_the_manifest_that_is_kept_says_it_all(tmp_path):
    (tmp_path / "below.yaml").write_text("rounds: 3\n")
    found = study(tmp_path, ["training.epochs=9", "name=mine"], config="below.yaml", grid={"seed": [1, 2]}, at_once=2)
    again = tmp_path / "again"
    again.mkdir()
    (again / "manifest.yaml").write_text(found.text())
    kept = sweep.study(again / "manifest.yaml", run.find, None, [])
    assert kept.name == "mine" and kept.runs == found.runs and kept.base == found.base
    assert [list(m.plan.nodes) for m in sweep.planned(kept)[0]] == [list(m.plan.nodes) for m in sweep.planned(found)[0]]


@pytest.mark.parametrize(
    ("words", "sections", "message"),
    [
        ([], {"grid": {"credt.name": ["uniform"]}}, r"study.yaml, run uniform: .*did you mean 'credit'"),
        ([], {"grid": {"credit.name": ["uniform", "shaply"]}}, r"run shaply: credit: there is no 'shaply'"),
        ([], {"grid": {"topology.name": ["solve_critique_reviser"]}}, r"run solve_critique_reviser: topologies"),
        (["rounds=2"], {"grid": {"rounds": [1, 2]}}, r"rounds is what .*study.yaml varies"),
        ([], {"workflow": "post_trian"}, r"line \d+: workflow: .*did you mean 'post_train'"),
        (
            [],
            {"grid": {"seed": [1]}, "workflow": "fidelity", "base": {}, "halving": {"rungs": [1, 2]}},
            r"runs of fidelity",
        ),
        ([], {"repeat": 2, "halving": {"rungs": [1, 2]}}, r"line \d+: halving: there is one configuration"),
    ],
)
def test_a_fault_is_told_before_anything_starts(tmp_path, words, sections, message):
    with pytest.raises(MeritError, match=message):
        sweep.planned(study(tmp_path, words, **sections))


@pytest.mark.parametrize("at_once", [1, 2, 0])
def test_no_more_runs_are_at_work_than_are_allowed(tmp_path, at_once):
    """The driver's own loop; a run that is begun is over when the next one is asked for."""
    found = study(tmp_path, repeat=5, at_once=at_once)
    members = sweep.planned(found)[0]
    driver = sweep_live._Driver(found, None, None, None, {}, Deadline(sites.load("local"), None, []), None, "")
    begun, most = [], []

    def over(members):
        for node in (node for member in members for node in member.wanted if not node.future.done()):
            node.future.set_result(None)

    def start(member):
        begun.append(member.run.seed)
        most.append(len(driver.active))
        for node in member.wanted:
            node.future = Future()
        if len(driver.active) == (at_once or 5):
            over(driver.active[:1])

    driver.start, driver.settle = start, lambda member: over(driver.active[:1])
    driver.together(members)
    assert begun == [0, 1, 2, 3, 4] and max(most) == (at_once or 5) and not driver.active
