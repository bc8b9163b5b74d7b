"""A chain of stages is one plan: what each link is set to, what it starts from, and what is refused before anything runs."""

from __future__ import annotations

import json

import pytest

from apps.records import MeritError
from workflows import chain, config, post_train
from workflows.plan import Plan


def loaded(*words: str) -> config.PostTrain:
    return config.load(config.PostTrain, None, ["rounds=1", *words])


def planned(*words: str) -> tuple[Plan, dict]:
    plan = Plan()
    return plan, post_train.dag(loaded(*words), plan)


def of(plan: Plan, stage: str, number: int) -> list:
    return [node for node in plan.nodes.values() if node.stage.name == stage and node.round == number]


def test_an_objective_is_short_for_post_training_with_it():
    first, second, third = chain.links(loaded("stages=[dpo, {name: grpo, rounds: 3, objective: {beta: 0.1}}, grpo]"))
    assert first.config.objective == {"name": "dpo"} and first.config.rounds == 1
    assert second.config.objective == {"name": "grpo", "beta": 0.1} and second.config.rounds == 3
    assert third.config.objective == {"name": "grpo", "beta": 0.0}  # the run's own section of that name
    assert [link.label for link in (first, second, third)] == ["dpo", "grpo", "grpo 2"]


def test_a_run_without_stages_is_its_one_stage():
    settings = loaded()
    (link,) = chain.links(settings)
    assert link.config is settings and link.module is post_train


def test_star_keeps_all_that_is_right_and_trains_the_untrained_team():
    (star,) = chain.links(loaded("stages=[star]"))
    assert star.config.restart and star.config.objective == {"name": "sft"}
    assert (star.config.credit, star.config.advantage) == ({"name": "uniform"}, {"name": "threshold"})
    (rest,) = chain.links(loaded("stages=[rest]"))
    assert not rest.config.restart and rest.config.objective == star.config.objective


def test_rounds_are_numbered_on_and_each_stage_starts_from_the_team_that_the_last_one_left():
    plan, found = planned("stages=[{name: grpo, rounds: 2}, {name: dpo, rounds: 1}]")
    assert {node.round for node in plan.nodes.values()} == {0, 1, 2, 3}
    objectives = [{node.options["objective"]["name"] for node in of(plan, "train", n)} for n in (1, 2, 3)]
    assert objectives == [{"grpo"}, {"grpo"}, {"dpo"}]
    (left,), (last,) = of(plan, "promote", 2), of(plan, "promote", 3)
    assert {node.inputs["policies"][0] for node in of(plan, "train", 3)} == {left}
    assert last.inputs["scores"] == [left] and found["team"] is last
    report = found["report"]
    assert report.options["stages"] == ["grpo", "dpo"] and report.inputs["stages"] == [left, last]
    assert len(report.inputs["validation"]) == 4 and len(report.inputs["promote"]) == 3


def test_star_plays_with_the_newest_team_and_trains_the_untrained_one():
    plan, found = planned("stages=[{name: star, rounds: 2}]")
    (left,) = of(plan, "promote", 1)
    plays = [node for node in of(plan, "rollout", 2) if node.options["seed"].split("/")[1] == "train"]
    assert {node.inputs["policies"][0] for node in plays} == {left}
    assert {node.inputs["policies"][0] for node in of(plan, "train", 2)} == {found["untrained"]}


def test_a_chain_of_one_runs_what_the_run_without_stages_does():
    alone, chained = planned()[0], planned("stages=[post_train]")[0]
    differing = set(alone.nodes) ^ set(chained.nodes)
    assert {plan.nodes[key].stage.name for plan in (alone, chained) for key in differing & set(plan.nodes)} == {
        "report"
    }


def test_after_fine_tuning_everything_that_opens_a_model_starts_from_the_new_one():
    plan, found = planned("stages=[{name: dpo, rounds: 1}, {name: sft, shared: true}, {name: grpo, rounds: 1}]")
    (merged,) = [node for node in plan.nodes.values() if node.stage.name == "merge"]
    assert found["model"] is merged
    for stage in ("rollout", "replay", "train"):
        assert {tuple(node.inputs["start"]) for node in of(plan, stage, 2)} == {(merged,)}
    assert not any("start" in node.inputs for node in of(plan, "train", 1))
    assert {node.inputs["policies"][0] for node in of(plan, "train", 2)} == {found["untrained"]}
    tested = [node for node in found["report"].inputs["after_sampled"][0].inputs["rollout"]]
    assert {node.inputs["start"][0] for node in tested} == {merged}
    assert not any("start" in n.inputs for n in found["report"].inputs["before_sampled"][0].inputs["rollout"])


def test_continued_pretraining_then_fine_tuning_without_an_adapter():
    plan, found = planned("stages=[{name: cpt, waves: 2}, {name: sft, shared: true, training: {lora: null}}]")
    gates = [node for node in plan.nodes.values() if node.stage.name == "gate"]
    assert found["model"].stage.name == "train" and found["model"].inputs["start"] == [gates[-1]]
    assert {node.round for node in found["report"].inputs["stages"]} == {0}  # no round of plays was used up


def test_a_stage_of_another_kind_takes_of_the_run_what_is_said_of_both():
    (link,) = chain.links(loaded("seed=7", "training.lr=0.5", "stages=[{name: sft, data: {examples: 50}}]"))
    assert link.config.seed == 7 and link.config.data.examples == 50
    assert link.config.training.lr != 0.5  # its own: the run's is for adapters under reinforcement


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ("[grop]", r"stages\[0\] \(grop\): stage: there is no 'grop'; did you mean 'grpo'\?"),
        ("[dpo, {rounds: 2}]", r"stages\[1\] \(\): \{'rounds': 2\} has no name"),
        ("[{name:dpo}]", r"stages\[0\] \(\): \{'name:dpo': None\} has no name; .* a space after each colon"),
        ("[{name: dpo, round: 2}]", r"stages\[0\] \(dpo\): .*there is no 'round'; did you mean 'rounds'\?"),
        ("[{name: dpo, objective: {beta: -1}}]", r"stages\[0\] \(dpo\): training/objectives.dpo: beta = -1"),
        ("[{name: dpo, seed: 2}]", r"stages\[0\] \(dpo\): seed is the whole run's"),
        ("[{name: dpo, topology: {name: single}}]", r"stages\[0\] \(dpo\): topology is the whole run's"),
        ("[{name: dpo, stages: [grpo]}]", r"stages\[0\] \(dpo\): stages is the whole run's"),
        ("[{name: sft, dataa: 3}]", r"stages\[0\] \(sft\): .*there is no 'dataa'; did you mean 'data'"),
        ("[{name: grpo, credit: {name: malt}, rollout: {plan: independent}}]", r"stages\[0\] \(grpo\): .*reads a tree"),
    ],
)
def test_a_fault_names_its_stage(stages, said):
    with pytest.raises(MeritError, match=said):
        planned(f"stages={stages}")


def test_scripted_agents_cannot_be_fine_tuned():
    with pytest.raises(MeritError, match=r"stages\[0\] \(sft\): scripted agents have no model to train"):
        planned("stages=[sft]", "engine.name=scripted")


@pytest.mark.slow
def test_a_chain_runs_and_its_report_has_a_row_for_each_stage(tmp_path):
    from tests.command import run

    small = (
        "evaluation={tasks: 20, samples: 1, validation_tasks: 12, validation_samples: 1, shards: 1, shown_tasks: 2}",
        "rollout={tasks: 4, shards: 1}",
        "rounds=1",
    )
    stages = "stages=[{name: cpt, waves: 1, steps: 2}, {name: sft, shared: true, data: {examples: 200}}, dpo, {name: distill, objective: {name: distill}}]"
    done = run(tmp_path, *small, stages, "name=chain")
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "runs" / "chain" / "summary.json").read_text())
    assert [row["stage"] for row in summary["stages"]] == ["cpt", "sft", "dpo", "distill"]
    assert summary["stages"][1]["change"]["difference"] > 0.2  # 200 careful examples mend the habits
    assert (tmp_path / "runs" / "chain" / "model" / "model.safetensors").is_file()
    assert "validation after distill" in done.stdout
