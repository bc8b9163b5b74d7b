"""The summary against the artifacts that it was made from."""

from __future__ import annotations

import json

import numpy as np
import pytest

from apps import artifacts
from apps.credit import results
from apps.evaluation import app as evaluation
from apps.report import app, page, summary
from apps.report.rounds import Played, facts, rounds
from tests.report import scripted_run

FIGURES = ("before_greedy", "after_greedy", "before_sampled", "after_sampled")


def test_the_rounds_are_found_by_provenance_whatever_the_order_of_the_folders(made):
    _, inputs, _ = made
    mixed = {
        name: folders[::-1] if name in ("batch", "rollout", "assign", "grade") else folders
        for name, folders in inputs.items()
    }
    assert rounds(mixed) == rounds(inputs)
    first, second = rounds(inputs)
    assert list(first.rollout) == inputs["rollout"][:2] and list(second.assign) == inputs["assign"][2:]
    assert {facts(folder)["agent"] for folder in first.train.values()} == set(scripted_run.AGENTS)


def test_accuracy_is_that_of_the_measures_and_differences_are_paired(made):
    _, inputs, found = made
    for mode in ("greedy", "sampled"):
        old, new = (evaluation.read(inputs[f"{when}_{mode}"][0]) for when in ("before", "after"))
        compared = found["accuracy"][mode]
        assert compared["before"] == old["accuracy"] and compared["after"] == new["accuracy"]
        change = [np.mean(new["scores"][task]) - np.mean(old["scores"][task]) for task in old["scores"]]
        assert compared["difference"] == pytest.approx(np.mean(change))
        assert compared["low"] < compared["difference"] < compared["high"]
        gained = sum(new["scores"][t][0] > old["scores"][t][0] for t in old["scores"])
        assert compared["mcnemar"]["gained"] == gained and compared["n"] == 24
    assert found["accuracy"]["sampled"]["samples"] == 2
    scores = evaluation.read(inputs["after_sampled"][0])
    above = scores["accuracy"]["value"] - scores["single"]["value"]
    assert found["team_over_solver"]["sampled"]["difference"] == pytest.approx(above)


def test_each_stage_of_a_chain_is_compared_with_the_team_that_it_began_with(made):
    _, inputs, found = made
    assert found["stages"] == []
    untrained, first, second = inputs["validation"]
    rows = summary.by_stage({"validation": [untrained], "stages": [first, second]}, {"stages": ["sft", "grpo"]})
    assert [row["stage"] for row in rows] == ["sft", "grpo"]
    for row, before, after in zip(rows, (untrained, first), (first, second), strict=True):
        old, new = evaluation.read(before), evaluation.read(after)
        change = np.mean([np.mean(new["scores"][task]) - np.mean(old["scores"][task]) for task in old["scores"]])
        assert row["change"]["difference"] == pytest.approx(change) and row["value"] == new["accuracy"]["value"]


def test_every_share_of_the_summary_has_its_interval(made):
    """Of the roles, critics' too, and of the whole team; what a role never had occasion for is null throughout."""
    _, _, found = made
    shares = [f for by_name in found["roles"].values() for both in by_name.values() for f in both.values()]
    for both in found["metrics"].values():
        for named in both.values():
            plain = {name: f for name, f in named.items() if name not in ("pass_at", "majority_at", "turns", "tokens")}
            shares += [*plain.values(), *named["pass_at"].values(), *named["majority_at"].values()]
    assert {"precision", "recall", "balanced_accuracy"} == set(found["roles"]["critic"]) and len(shares) > 40
    for f in shares:
        assert set(f) == {"value", "low", "high", "n"}
        assert f["low"] <= f["value"] <= f["high"] if f["n"] else f["value"] is f["low"] is f["high"] is None


def test_credit_is_the_mean_over_tasks_of_what_was_assigned(made):
    _, inputs, found = made
    given = results.read(inputs["show_after"][2])
    for role in scripted_run.AGENTS:
        shown = found["credit"][role]["after"]
        assert shown["mean"] == pytest.approx(np.mean([c.agents[role] for c in given]))
        assert shown["low"] <= shown["mean"] <= shown["high"] and shown["n"] == len(given)
        assert [r["n"] for r in found["credit"][role]["rounds"]] == [4, 4]


def test_shuffled_credit_counts_by_the_turns(made):
    _, inputs, _ = made
    plays = summary.played([inputs["show_after"][0]], [inputs["show_after"][1]], [inputs["show_after"][2]])
    bare = [results.Credit(c.trace, c.values, c.errors) for c in plays.credit]
    table = summary.values_by_agent(Played(plays.graded, bare))
    for agent, by_task in table.items():
        for graded, credit in zip(plays.graded, bare, strict=True):
            mine = [v for t, v in zip(graded.trace.turns, credit.values, strict=True) if t.agent == agent]
            if mine:
                assert sum(mine) in [pytest.approx(v) for v in by_task[graded.trace.task]]


def test_seconds_and_tokens_count_each_folder_once(made):
    _, inputs, found = made
    folders = {folder for given in inputs.values() for folder in given}
    took = sum(artifacts.manifest(folder)["seconds"] for folder in folders)
    assert sum(found["seconds"].values()) == pytest.approx(took, abs=0.01)
    sampled = sum(facts(f)["tokens"] for f in folders if artifacts.manifest(f)["stage"] in ("rollout", "replay"))
    assert found["tokens"] == {"sampled": sampled, "trained": 8 * 100}


def test_the_course_of_the_run(made):
    _, inputs, found = made
    assert [row["round"] for row in found["validation"]] == [0, 1, 2]
    assert (
        [d["promoted"] for d in found["promotions"]]
        == [facts(f)["promoted"] for f in inputs["promote"]]
        == [True, False]
    )
    assert found["health"]["critic"][1]["kl"] == pytest.approx(0.04)
    assert found["health"]["solver"][0]["entropy"] == pytest.approx(0.1)
    assert found["health"]["solver"][0]["mismatch"] == pytest.approx(0.001)
    share = facts(inputs["batch"][0])["solver"]
    assert found["health"]["solver"][0]["no_variance"] == pytest.approx(1 - share["rows"] / share["turns"])


def test_a_run_without_training_has_a_report_too(made, tmp_path):
    _, inputs, _ = made
    app.report(tmp_path, {name: inputs[name] for name in FIGURES}, scripted_run.OPTIONS)
    found = json.loads((tmp_path / app.SUMMARY).read_text())
    assert found["credit"]["critic"] == {
        w: {"mean": None, "low": None, "high": None, "n": 0} for w in ("before", "after")
    } | {"rounds": []}
    assert found["validation"] == [] and found["health"]["solver"] == []
    assert "No plays were given" in (tmp_path / app.PAGE).read_text()


def test_what_is_not_a_number_is_null():
    assert summary.plain({"a": float("nan"), 1: (np.float32(0.5), np.int64(2), float("inf"))}) == {
        "a": None,
        "1": [0.5, 2, None],
    }
    found = json.dumps(summary.plain({"x": [float("nan")]}), allow_nan=False)
    assert found == '{"x": [null]}'


@pytest.mark.parametrize(
    ("tried", "trained", "rounds"),
    [
        ([["solver", "critic"]] * 3, [("solver", "critic")] * 3, [1, 2, 3]),
        ([["solver"], ["critic"]] * 2, [("solver", "critic")] * 2, [1, 1, 2, 2]),  # one adapter at a time
        ([["solver"], ["critic"], ["solver"]], [("solver",), ("critic",), ("solver",)], [1, 2, 3]),  # alternating
        ([["solver"], ["solver"], ["critic"]], [("solver",), ("solver",), ("critic",)], [1, 2, 3]),  # best response
        ([], [], []),
    ],
)
def test_a_decision_is_of_the_round_in_which_its_agents_were_tried(tmp_path, tried, trained, rounds):
    folders = [tmp_path / str(i) for i in range(len(tried))]
    for i, (folder, agents) in enumerate(zip(folders, tried, strict=True)):
        folder.mkdir()
        (folder / "facts.json").write_text(json.dumps({"agents": agents, "promoted": i == 1}))
    found = summary.decisions(folders, trained)
    assert [d["round"] for d in found] == rounds and [d["agents"] for d in found] == tried
    assert page.let_in(found) == ([True, False] if len(tried) == 4 else [i == 1 for i in range(len(tried))])


def test_the_signs_of_gamed_credit_are_those_of_the_rounds_plays(made):
    _, inputs, found = made
    credit = [c for folder in inputs["assign"] for c in results.read(folder)]
    spoken = sum(len(c.values) for c in credit)
    assert found["gaming"]["length"]["all"]["n"] == spoken > 0
    assert set(found["gaming"]["length"]) <= {*scripted_run.AGENTS, "all"}
    assert summary.gamed([Played()]) is None
