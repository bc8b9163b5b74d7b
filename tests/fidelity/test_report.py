"""All three parts, small and real, put together: what the summary, the table and the page hold."""

from __future__ import annotations

import json

import pytest

from apps import policies
from apps.credit import app as credit_app
from apps.fidelity import agreement, app, contest, report, summary, truth
from apps.fidelity.measures import Judged
from apps.inference import app as inference_app
from apps.reward import app as reward_app
from apps.tasks import app as tasks_app
from apps.topologies import solve_critique_revise as team

VERIFIER, TOPOLOGY = {"name": "exact_number"}, {"name": "solve_critique_revise"}
METHODS = {
    "uniform": {"name": "uniform"},
    "shapley_1": {"name": "shapley", "repeats": 1},
    "shapley_8": {"name": "shapley", "repeats": 8},
    "counterfactual": {"name": "counterfactual"},
}
TRUTHS = {"prefix": {"name": truth.__name__, "repeats": 8}, "shapley": {"name": "shapley", "repeats": 8}}


def staged(tmp_path, name, function, inputs, **options):
    folder = tmp_path / name
    folder.mkdir()
    facts = function(folder, inputs, options)
    (folder / "facts.json").write_text(json.dumps(facts))
    return [folder]


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A scripted team judged as a model's own."""
    at = tmp_path_factory.mktemp("team")
    tasks = staged(
        at, "tasks", tasks_app.tasks, {}, tasks={"name": "arithmetic", "test": 4}, split="test", verifier=VERIFIER
    )
    who = staged(at, "base", policies.base, {}, agents=team.ROLES)
    speak = {"topology": TOPOLOGY, "engine": {"name": "scripted"}, "model": "", "prompts": team.PROMPTS}
    speak |= {"sampling": {}, "seed": "s"}
    inputs = {"tasks": tasks, "policies": who}
    take = {"seed": "s", "start": 0, "count": 3}
    plan = {"name": "independent", "samples": 3}
    played = staged(at, "rollout", inference_app.rollout, inputs, take=take, plan=plan, **speak)
    inputs["rollout"] = played
    inputs["grade"] = staged(at, "grade", reward_app.grade, inputs, verifier=VERIFIER, topology=TOPOLOGY)
    speak["verifier"] = VERIFIER
    shared = staged(at, "replay", credit_app.replay, inputs, methods=list(METHODS.values()), **speak)
    speak["seed"] = "other"
    trusted = staged(at, "truth", credit_app.replay, inputs, methods=list(TRUTHS.values()), **speak)
    inputs |= {"replay": shared, "truth": trusted}
    chosen = {"methods": METHODS, "truths": TRUTHS, "watched": ["uniform"], "topology": TOPOLOGY}
    return staged(
        at, "compared", app.compared, inputs, stand_ins=["shapley_8"], opposed=["shapley_8", "counterfactual"], **chosen
    )


def test_methods_are_compared_with_both_truths_and_more_replays_come_closer(compared):
    found = json.loads((compared[0] / app.COMPARED).read_text())
    assert (found["tasks"], found["traces"]) == (3, 9)
    rough, fine = found["methods"]["shapley_1"], found["methods"]["shapley_8"]
    assert fine["replays"] == 8 * rough["replays"] > 0 and fine["seconds"] > 0
    assert 0.5 < fine["spearman_shapley"]["value"] < 1  # other random numbers: not the truth itself
    assert found["removal_and_replacement"]["spearman"][0][0] == pytest.approx(1)
    assert "length" in found["gaming"]["uniform"]


def test_the_report_has_all_parts(compared, tmp_path):
    games = {"games": contest.Options(budgets=(200, 400), seeds=4, teams=2).model_dump(mode="json")}
    played = staged(tmp_path, "contest", app.contest, {}, **games)
    inputs = {"contest": played, "compared": compared}
    facts = report.fidelity(tmp_path, inputs, {"name": "x", "methods": METHODS, "config": {"seed": 1}})
    assert facts["parts"] == ["games", "team"]
    found, page = json.loads((tmp_path / "summary.json").read_text()), (tmp_path / "report.html").read_text()
    assert found["games"]["halving"]["median"] > 0 and found["team"]["methods"]["uniform"]["tokens"] == 0
    assert all(f'id="figure-{name}"' in page for name in ("errors", "repeats", "team-costs"))
    assert "http" not in page and "shapley_8" in found["table"]


def test_a_matrix_of_ranks():
    says = {"up": [Judged((1, 2, 3), {})], "down": [Judged((9, 5, 1), {})], "flat": [Judged((0, 0, 0), {})]}
    found = agreement.matrix(says)
    assert found["names"] == ["up", "down", "flat"]
    assert found["spearman"][0][:2] == pytest.approx([1, -1]) and found["spearman"][2] == [None, None, None]


@pytest.mark.parametrize(("value", "figure", "reached"), [(0.95, "agent_top1", True), (0.94, "agent_top1", False)])
def test_what_was_promised_is_compared_with_what_was_measured(value, figure, reached):
    blame = {"value": 0.05}  # under 5 % was promised
    found = summary.targets(
        {"first_error": {figure: {"value": value}, "turn_top1": {"value": 0.9}, "false_blame": blame}}
    )
    told = {one["figure"]: one["reached"] for one in found}
    assert told == {figure: reached, "turn_top1": True, "false_blame": False}
