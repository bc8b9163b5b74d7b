"""The figures of a team on plays made by hand, and what their intervals hold to."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from apps.evaluation import figures as of_team
from apps.evaluation import statistics
from apps.records import Graded, Verdict
from apps.topologies.solve_critique_revise import DUTIES
from tests.evaluation.plays import PLAYS


@pytest.fixture(scope="module")
def figures():
    return of_team.figures(PLAYS, DUTIES)


def test_the_team_and_its_solver_alone(figures):
    assert (figures["n"], figures["samples"]) == (3, 2)
    assert figures["accuracy"]["value"] == pytest.approx(3 / 6) and figures["single"]["value"] == pytest.approx(3 / 6)
    assert figures["scores"] == {"a": [1, 1], "b": [0, 0], "c": [1, 0]}
    assert figures["drafts"] == {"a": [1, 0], "b": [1, 0], "c": [0, 1]}
    value = lambda name: (figures[name]["value"], figures[name]["n"])  # noqa: E731
    assert value("collaboration_efficiency") == (pytest.approx(0), 3)
    assert value("convergence") == (0.5, 6) and value("unparsed") == (0, 6)
    assert value("error_correction") == (pytest.approx(2 / 3), 3)  # of 41, 7, ? two ended right
    assert value("error_introduction") == (pytest.approx(2 / 3), 3)  # of three right drafts one stayed
    assert figures["turns"] == 21 / 6 and figures["tokens"] == 2 * 21 / 6


def test_an_answer_is_corrected_or_broken_between_the_draft_and_the_end():
    found = of_team.figures(PLAYS[:2], DUTIES)
    assert (found["error_correction"]["value"], found["error_correction"]["n"]) == (1, 1)
    assert (found["error_introduction"]["value"], found["error_introduction"]["n"]) == (0, 1)


def test_the_critic_is_judged_on_its_own_verdicts(figures):
    critic = figures["roles"]["critic"]
    assert [critic[k] for k in ("true_positives", "false_positives", "true_negatives", "false_negatives")] == [
        1,
        1,
        2,
        2,
    ]
    assert (critic["precision"]["value"], critic["precision"]["n"]) == (1 / 2, 2)
    assert (critic["recall"]["value"], critic["recall"]["n"]) == (pytest.approx(1 / 3), 3)
    assert critic["balanced_accuracy"]["value"] == pytest.approx((1 / 3 + 2 / 3) / 2)
    assert critic["balanced_accuracy"]["n"] == 6


def test_each_other_role_by_its_duty(figures):
    roles = figures["roles"]
    value = lambda role, figure: (roles[role][figure]["value"], roles[role][figure]["n"])  # noqa: E731
    assert value("solver", "accuracy") == (0.5, 6)
    assert value("reviser", "wrong_to_right") == (0.5, 2) and value("reviser", "right_to_wrong") == (1.0, 1)
    assert value("verifier", "misread") == (pytest.approx(2 / 5), 5)  # "?" could not be read, so not misread
    assert value("verifier", "accuracy") == (0.5, 6)
    for role in ("solver", "verifier"):
        assert roles[role]["accuracy"]["low"] < 0.5 < roles[role]["accuracy"]["high"]


def test_many_samples_of_a_task(figures):
    at = {name: {k: (f["value"], f["n"]) for k, f in figures[name].items()} for name in ("pass_at", "majority_at")}
    assert at["pass_at"] == {"1": (pytest.approx(0.5), 3), "2": (pytest.approx(2 / 3), 3)}
    assert at["majority_at"]["1"] == (pytest.approx(0.5), 3) and set(at["majority_at"]) == {"1", "2"}


def test_a_role_that_never_spoke_has_no_figure():
    reviser = of_team.figures(PLAYS[:1], DUTIES)["roles"]["reviser"]["wrong_to_right"]
    assert all(math.isnan(reviser[end]) for end in ("value", "low", "high")) and reviser["n"] == 0


def test_a_verifier_of_degree_counts_as_right_from_a_half_on():
    half = [
        Graded(g.trace, Verdict(score, "1", ""), (Verdict(1 - score, "1", ""), None, Verdict(score, "1", "")))
        for g, score in ((PLAYS[0], 0.3), (PLAYS[3], 0.9))
    ]
    found = of_team.figures(half, DUTIES)
    assert found["error_introduction"]["value"] == found["error_correction"]["value"] == 1.0
    assert found["accuracy"]["value"] == pytest.approx(0.6)


def rates(found):
    """name -> figure, of all that are shares."""
    flat = {name: f for name, f in found.items() if isinstance(f, dict) and "value" in f}
    for kind in ("pass_at", "majority_at"):
        flat |= {f"{kind} {k}": f for k, f in found[kind].items()}
    for role, named in found["roles"].items():
        flat |= {f"{role} {name}": f for name, f in named.items() if isinstance(f, dict)}
    return flat


def test_every_share_has_an_interval_about_it(figures):
    names = set(rates(figures))
    assert names == {
        "accuracy", "single", "convergence", "error_correction", "error_introduction", "collaboration_efficiency",
        "unparsed", "pass_at 1", "pass_at 2", "majority_at 1", "majority_at 2", "solver accuracy", "critic precision",
        "critic recall", "critic balanced_accuracy", "reviser accuracy", "reviser wrong_to_right",
        "reviser right_to_wrong", "verifier accuracy", "verifier misread",
    }  # fmt: skip
    for name, f in rates(figures).items():
        assert set(f) == {"value", "low", "high", "n"}
        assert f["low"] <= f["value"] <= f["high"] and f["low"] < f["high"] and f["n"] > 0, name
    assert set(figures) - names == {
        "n",
        "samples",
        "turns",
        "tokens",
        "scores",
        "drafts",
        "pass_at",
        "majority_at",
        "roles",
    }


def repeated(plays, times):
    """The same plays once more under the ids of other samples."""
    return [replace(g, trace=replace(g.trace, sample=f"{g.trace.sample}.{i}")) for g in plays for i in range(times)]


def test_more_of_the_same_plays_make_no_interval_narrower(figures):
    """Figures by play and by turn stay as unsure as the tasks are few; a vote and a pass rate of more samples differ."""
    once, often = rates(figures), rates(of_team.figures(repeated(PLAYS, 5), DUTIES))
    for name, f in once.items():
        if "_at " not in name:
            assert [often[name][k] for k in ("value", "low", "high")] == pytest.approx(
                [f[k] for k in ("value", "low", "high")], abs=0.01
            ), name


def test_the_order_of_the_plays_of_different_tasks_changes_nothing(figures):
    by_task = [PLAYS[4:], PLAYS[:2], PLAYS[2:4]]
    mixed = of_team.figures([g for plays in by_task for g in plays], DUTIES)
    assert json.dumps(mixed, sort_keys=True) == json.dumps(figures, sort_keys=True)


def test_one_greedy_play_a_task_is_wilsons():
    plays = [replace(g, trace=replace(g.trace, task=f"{i}")) for i, g in enumerate(PLAYS)]
    found = rates(of_team.figures(plays, DUTIES))
    for name, hits, n in (
        ("accuracy", 3, 6), ("convergence", 3, 6), ("critic recall", 1, 3), ("reviser wrong_to_right", 1, 2),
        ("verifier misread", 2, 5), ("pass_at 1", 3, 6),
    ):  # fmt: skip
        expected = statistics.wilson(hits, n)
        assert (found[name]["low"], found[name]["high"]) == pytest.approx((expected.low, expected.high)), name


def test_working_together_is_weighed_by_task():
    """Of six tasks (by hand: right → right, wrong → right, right → wrong, wrong → wrong, wrong → right, right → wrong) two
    are gained and two lost; the interval is that of the paired difference, shared among three."""
    plays = [replace(g, trace=replace(g.trace, task=f"{i}")) for i, g in enumerate(PLAYS)]
    found = of_team.figures(plays, DUTIES)["collaboration_efficiency"]
    expected = statistics.paired(np.array([1, 0, 1, 0, 0, 1.0]), np.array([1, 1, 0, 0, 1, 0.0]))
    assert (found["value"], found["n"]) == (pytest.approx(0), 6)
    assert (3 * found["low"], 3 * found["high"]) == pytest.approx((expected.low, expected.high))
    gained = of_team.figures(plays[:2] + plays[4:5], DUTIES)["collaboration_efficiency"]
    assert gained["value"] == pytest.approx(2 / 3 / 3)


def test_one_agent_alone_does_not_collaborate():
    alone = [
        replace(g, trace=replace(g.trace, turns=g.trace.turns[:1]), turn_verdicts=g.turn_verdicts[:1]) for g in PLAYS
    ]
    found = of_team.figures(alone, {"solver": "solve"})
    assert all(math.isnan(found["collaboration_efficiency"][end]) for end in ("value", "low", "high"))
    assert found["single"]["value"] == 0.5
