"""The stages on real plays: what strikes is known, the truth is what replays say, and the results are read back."""

from __future__ import annotations

import json

import numpy as np
import pytest

from apps.fidelity import app, faults, measures, report, rows, truth
from apps.inference.engines import scripted
from apps.records import MeritError
from apps.tasks import app as tasks_app
from tests.credit.plays import drive, graded, group

VERIFIER = {"name": "exact_number"}
PERFECT = {"solve": 0, "wave_through": 0, "cry_wolf": 0, "revise": 0, "break_right": 0, "report": 0}
METHODS = {"uniform": {"name": "uniform"}, "walk": {"name": "first_error"}, "local": {"name": "local"}}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    tasks_app.tasks(folder, {}, {"tasks": {"name": "arithmetic", "test": 20}, "split": "test", "verifier": VERIFIER})
    return folder


def planted(tasks, out, repeats=8, methods=METHODS, faulty_base=False, **case):
    case = {"name": "one", "tasks": 4, "samples": 4, **case}
    options = {"case": case, "usual": PERFECT, "seed": "0", "methods": methods, "truth": repeats, "verifier": VERIFIER}
    options["faulty_base"] = faulty_base
    app.planted(out, {"tasks": [tasks]}, options)
    return rows.read(out)


def test_a_fault_that_strikes_is_the_only_cause_of_failure_in_a_perfect_team(tasks, tmp_path):
    played = planted(tasks, tmp_path, faults=[{"role": "solver", "kind": "wrong_step", "rate": 0.5}])
    assert 3 <= sum(bool(row.struck) for row in played) <= 13
    for row in played:
        assert row.failed == bool(row.struck) == (row.struck == {0: "wrong_step"})
        assert (row.undone == 1.0 and row.ruined) if row.struck else row.undone is None
        walk = row.methods["walk"]
        assert measures.accused_agent(row, walk) == ("solver" if row.struck else None)
        assert sum(row.truth[1:]) == 0 and np.sign(row.truth[0]) == (-1 if row.struck else 1)


def test_the_critic_is_guilty_of_what_it_waves_through_and_the_truth_says_so(tasks, tmp_path):
    normal, fault = {"solver": {"solve": 1.0}}, {"role": "critic", "kind": "wave_through", "rate": 0.5}
    played = planted(tasks, tmp_path, repeats=32, normal=normal, faults=[fault])
    struck = [row for row in played if row.struck]
    assert struck and all(row.guilty == {"critic"} and row.ruined for row in struck)
    assert all(row.truth[1] < -0.2 and abs(row.truth[0]) < 0.2 for row in struck)
    assert all(row.methods["local"].agents["solver"] < 0 for row in struck)  # who judges by truth blames the draft too


def test_two_faults_are_two_guilty(tasks, tmp_path):
    pair = [{"role": "solver", "kind": "slip", "rate": 0.8}, {"role": "critic", "kind": "wave_through", "rate": 0.8}]
    played = planted(tasks, tmp_path, faults=pair)
    for row in played:
        assert row.failed == (row.guilty == {"solver", "critic"})


def test_a_habit_is_marked(tasks, tmp_path):
    played = planted(tasks, tmp_path, faults=[{"role": "verifier", "kind": "sabotage", "rate": 1}])
    assert all(row.habit and row.ruined for row in played)


def test_redundant_critics_mend_what_one_waves_through(tasks, tmp_path):
    fault = {"role": "critic_a", "kind": "wave_through", "rate": 1}
    normal = {"solver": {"solve": 1.0}}
    played = planted(tasks, tmp_path, topology={"name": "two_critics"}, normal=normal, faults=[fault])
    assert all(row.struck == {1: "wave_through"} and not row.failed for row in played)


def test_rows_are_read_as_they_were_written_and_the_same_seed_gives_the_same(tasks, tmp_path):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    fault = {"role": "critic", "kind": "cry_wolf", "rate": 0.5}
    normal = {"reviser": {"break_right": 1.0}}
    first, again = (planted(tasks, tmp_path / name, faults=[fault], normal=normal) for name in "ab")
    assert first == again and (tmp_path / "a" / rows.FILE).read_bytes() == (tmp_path / "b" / rows.FILE).read_bytes()
    rows.write(tmp_path, first)
    assert rows.read(tmp_path) == first
    assert {row.outcome for row in first} == {0.0, 1.0}


def test_a_method_that_asks_a_model_is_told_to_stay_out(tasks, tmp_path):
    with pytest.raises(MeritError, match=r"methods\.judge, case one: .*leave it out"):
        planted(tasks, tmp_path, methods={"judge": {"name": "judge"}})


def test_worth_by_prefix_adds_up_and_prefixes_that_traces_share_are_continued_once():
    two = group(graded(["solver", "critic"], 0.0), graded(["solver", "critic"], 1.0, sample=1))
    value = {0: 0.75, 1: 0.5}

    def score(replay):
        assert replay.fresh == "rest" and not replay.absent and replay.repeat >= truth.FIRST
        return float((replay.repeat - truth.FIRST) / 4 < value[replay.keep])

    credit, asked = drive(truth.assign(two, truth.Options(repeats=4)), score)
    assert len(asked) == 2 * 4
    assert [c.values for c in credit] == [(-0.25, -0.5), (-0.25, 0.5)]
    assert credit[0].agents == {"solver": -0.25, "critic": -0.5}
    assert credit[0].errors[1] == pytest.approx(np.std([1, 1, 0, 0], ddof=1) / 2)


def test_a_case_with_other_rates_is_another_team():
    usual = scripted.Rates(**PERFECT)
    options = faults.Case(name="x", normal={"solver": {"solve": 0.5}}).engine(usual)
    assert options.rates("solver").solve == 0.5 and options.rates("reviser").revise == 0
    assert options.duties["verifier"] == "report"


def test_the_page_and_the_summary_hold_the_parts_that_were_run(tasks, tmp_path):
    (tmp_path / "rows").mkdir()
    played = planted(tasks, tmp_path / "rows", faults=[{"role": "solver", "kind": "wrong_step", "rate": 0.5}])
    facts = report.fidelity(
        tmp_path, {"planted": [tmp_path / "rows"]}, {"name": "mine", "methods": METHODS, "config": {}}
    )
    found = json.loads((tmp_path / "summary.json").read_text())
    assert facts == {"parts": ["faults"]} and "games" not in found and "team" not in found
    named = found["faults"]["methods"]["walk"]["agent_top1"]
    assert named["value"] == 1 and named["n"] == sum(row.ruined for row in played)
    assert 0 < named["low"] < 1 == named["high"]
    page = (tmp_path / "report.html").read_text()
    assert "<svg" in page and "http" not in page and "nan" not in page.lower()
    assert "walk" in found["table"] and "local" in found["table"]


def test_a_stand_in_with_the_same_habit_cannot_show_it_and_what_it_did_is_known_all_the_same(tasks, tmp_path):
    (tmp_path / "sound").mkdir(), (tmp_path / "faulty").mkdir()
    habit = [{"role": "verifier", "kind": "sabotage", "rate": 1}]
    methods = {"base": {"name": "leave_one_out", "protocol": "base", "repeats": 2}}
    told, blind = (
        planted(tasks, tmp_path / name, methods=methods, faults=habit, faulty_base=name == "faulty")
        for name in ("sound", "faulty")
    )
    assert all(row.ruined and row.undone == 1.0 for row in told + blind)
    assert {measures.accused_agent(row, row.methods["base"]) for row in told} == {"verifier"}
    assert {measures.accused_agent(row, row.methods["base"]) for row in blind} == {None}
