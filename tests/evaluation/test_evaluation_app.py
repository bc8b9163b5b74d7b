"""The evaluation stages on plays made by hand, whose figures can be counted. (A second `test_app.py` could not be
collected beside credit's.)"""

from __future__ import annotations

import json
import math

import pytest

from apps import policies
from apps.evaluation import app
from apps.inference import traces
from apps.records import Graded, Policy, Sampling, Trace, Turn, Verdict
from apps.reward import verdicts
from apps.topologies.solve_critique_revise import DUTIES
from tests.models import ids

GOLD = "42"


def turn(agent, text):
    return Turn(agent, f"{agent}.0", "", text, ids(1), ids(1, 2), [-1.0, -1.0], "base", Sampling(), 1)


def play(task, sample, said, converged=True):
    """`said`: (agent, text) in order; a text without a number is a critic's. The last answer is the team's."""
    answers = [
        Verdict(float(text == GOLD), None if text == "?" else text, "") if text[0] in "0123456789?" else None
        for _, text in said
    ]
    last = [v for v in answers if v is not None][-1]
    trace = Trace(task, str(sample), tuple(turn(*one) for one in said), said[-1][1], converged)
    return Graded(trace, last, tuple(answers))


OK, NO = "VERDICT: CORRECT", "VERDICT: INCORRECT"
PLAYS = [
    # right draft, passed, read out
    play("a", 0, [("solver", "42"), ("critic", OK), ("verifier", "42")]),
    # wrong draft found and repaired
    play("a", 1, [("solver", "41"), ("critic", NO), ("reviser", "42"), ("verifier", "42")], False),
    # right draft, cried wolf, broken, and misread on top
    play("b", 0, [("solver", "42"), ("critic", NO), ("reviser", "40"), ("verifier", "39")], False),
    # wrong draft waved through, read out well
    play("b", 1, [("solver", "7"), ("critic", OK), ("verifier", "7")]),
    # wrong draft, no parsable verdict, not repaired, verifier happens on it
    play("c", 0, [("solver", "?"), ("critic", "VERDICT: perhaps"), ("reviser", "?"), ("verifier", "42")], False),
    # right draft, passed, misread
    play("c", 1, [("solver", "42"), ("critic", OK), ("verifier", "2")]),
]


@pytest.fixture(scope="module")
def figures():
    return app.figures(PLAYS, DUTIES)


def test_the_team_and_its_solver_alone(figures):
    assert (figures["n"], figures["samples"]) == (3, 2)
    assert figures["accuracy"]["value"] == pytest.approx(3 / 6) and figures["single"]["value"] == pytest.approx(3 / 6)
    assert figures["scores"] == {"a": [1, 1], "b": [0, 0], "c": [1, 0]}
    assert figures["drafts"] == {"a": [1, 0], "b": [1, 0], "c": [0, 1]}
    assert figures["collaboration_efficiency"] == 0
    assert figures["convergence"] == 0.5 and figures["unparsed"] == 0
    assert figures["error_correction"] == pytest.approx(2 / 3)  # of 41, 7, ? two ended right
    assert figures["error_introduction"] == pytest.approx(2 / 3)  # of three right drafts one stayed
    assert figures["turns"] == 21 / 6 and figures["tokens"] == 2 * 21 / 6


def test_the_critic_is_judged_on_its_own_verdicts(figures):
    critic = figures["roles"]["critic"]
    assert [critic[k] for k in ("true_positives", "false_positives", "true_negatives", "false_negatives")] == [
        1,
        1,
        2,
        2,
    ]
    assert critic["precision"] == 1 / 2 and critic["recall"] == pytest.approx(1 / 3)
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
    assert figures["pass_at"] == {"1": pytest.approx(0.5), "2": pytest.approx(2 / 3)}
    assert figures["majority_at"]["1"] == pytest.approx(0.5)
    assert set(figures["majority_at"]) == {"1", "2"}


def test_a_role_that_never_spoke_has_no_figure():
    reviser = app.figures(PLAYS[:1], DUTIES)["roles"]["reviser"]["wrong_to_right"]
    assert math.isnan(reviser["value"]) and reviser["n"] == 0


def test_a_verifier_of_degree_counts_as_right_from_a_half_on():
    half = [
        Graded(g.trace, Verdict(score, "1", ""), (Verdict(1 - score, "1", ""), None, Verdict(score, "1", "")))
        for g, score in ((PLAYS[0], 0.3), (PLAYS[3], 0.9))
    ]
    found = app.figures(half, DUTIES)
    assert found["error_introduction"] == 1.0 and found["error_correction"] == 1.0
    assert found["accuracy"]["value"] == pytest.approx(0.6)


def test_the_stage_writes_what_it_measured(figures, tmp_path):
    for shard, plays in ((tmp_path / "0", PLAYS[:4]), (tmp_path / "1", PLAYS[4:])):
        shard.mkdir()
        traces.write(shard / traces.FILE, [g.trace for g in plays])
        verdicts.write(shard, plays)
    shards = [tmp_path / "0", tmp_path / "1"]
    facts = app.measure(tmp_path, {"rollout": shards, "grade": shards}, {"topology": {"name": "solve_critique_revise"}})
    assert facts == {"accuracy": 0.5, "single": 0.5, "n": 3}
    assert app.read(tmp_path) == json.loads(json.dumps(figures))
    assert app.matrix(app.read(tmp_path)).tolist() == [[1, 1], [0, 0], [1, 0]]
    assert app.matrix(app.read(tmp_path), "drafts").tolist() == [[1, 0], [1, 0], [0, 1]]


def scores(folder, right, n=40):
    folder.mkdir()
    rows = {f"{i:03}": [float(i < right)] for i in range(n)}
    (folder / app.FILE).write_text(json.dumps({"scores": rows}))
    return folder


def team(folder, digest):
    folder.mkdir()
    (folder.parent / f"{folder.name}_adapter").mkdir()
    (folder.parent / f"{folder.name}_adapter" / "adapter_model.safetensors").write_text(digest)
    policies.write(folder, {"solver": digest, "critic": "base"}, {"solver": folder.parent / f"{folder.name}_adapter"})
    return folder


@pytest.mark.parametrize(
    ("before", "after", "rule", "promoted"),
    [
        (10, 30, "better", True),
        (10, 11, "better", False),
        (10, 11, "not_worse", True),
        (30, 10, "not_worse", False),
        (30, 10, "always", True),
    ],
)
def test_the_team_that_plays_on_is_the_one_that_the_test_allows(tmp_path, before, after, rule, promoted):
    inputs = {
        "scores": [scores(tmp_path / "before", before)],
        "candidate_scores": [scores(tmp_path / "after", after)],
        "policies": [team(tmp_path / "old", "old")],
        "candidate": [team(tmp_path / "new", "new")],
    }
    (tmp_path / "out").mkdir()
    facts = app.promote(tmp_path / "out", inputs, {"promotion": {"rule": rule, "alpha": 0.05}, "agents": ["solver"]})
    digest = "new" if promoted else "old"
    assert facts["promoted"] is promoted
    assert policies.read(tmp_path / "out") == {
        "solver": Policy("solver", digest, str(tmp_path / "out" / "solver")),
        "critic": Policy("critic"),
    }
    assert (tmp_path / "out" / "solver" / "adapter_model.safetensors").read_text() == digest
    assert sum(map(sum, app.read(tmp_path / "out")["scores"].values())) == (after if promoted else before)
