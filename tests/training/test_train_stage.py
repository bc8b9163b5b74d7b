"""The stages `batch` and `train`, files in and files out, on a tiny model."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

from apps import policies
from apps.credit import results
from apps.inference import traces
from apps.inference.driver import Start, Team, Voice, perform
from apps.inference.engines import transformers
from apps.records import Credit, Graded, MeritError, Policy, Sampling, Verdict
from apps.reward import verdicts
from apps.training import app, canary, fit, policy
from apps.training.rows import Rows
from tests import models

AGENTS = ["solver", "critic", "reviser", "verifier"]
TASKS = models.tasks(3)


@pytest.fixture(scope="module")
def shards(tiny_model, tmp_path_factory):
    """Two shards of plays with made-up verdicts and credit: solver and critic differ, the others are worth the same."""
    engine = transformers.load(str(tiny_model), transformers.Options(), "cpu")
    team = Team("solve_critique_revise", {}, models.PROMPTS, {a: Policy(a) for a in AGENTS}, Sampling(max_new_tokens=5))
    folders = []
    for number, tasks in enumerate((TASKS[:2], TASKS[2:])):
        folder = tmp_path_factory.mktemp(f"shard{number}")
        played = perform([Start(task, str(k)) for task in tasks for k in range(4)], Voice(team, engine, "s"))
        traces.write(folder / traces.FILE, played)
        graded = [Graded(t, Verdict(float(i % 2), "1", ""), (None,) * len(t.turns)) for i, t in enumerate(played)]
        verdicts.write(folder, graded)
        worth = {"solver": 1.0, "critic": -0.5, "reviser": 0.0, "verifier": 0.0}
        credit = [
            Credit(t.id, tuple(worth[turn.agent] * (i % 2) for turn in t.turns), (0.0,) * len(t.turns))
            for i, t in enumerate(played)
        ]
        results.write(folder, credit)
        folders.append(folder)
    return folders


def batch(shards, out, objective="grpo"):
    options = {"agents": AGENTS, "advantage": {"name": "grpo"}, "objective": {"name": objective}}
    return app.batch(out, {"rollout": shards, "grade": shards, "assign": shards}, options)


@pytest.fixture(scope="module")
def batched(shards, tmp_path_factory):
    out = tmp_path_factory.mktemp("batch")
    return out, batch(shards, out)


def train(model, out, batch_folder, agent="solver", team=None, objective="grpo", seed=0, **training):
    out.mkdir()
    inputs = {"batch": [batch_folder], **({"policies": [team]} if team else {})}
    settings = {"step_rows": 4, "micro_tokens": 200, **training}
    options = {
        "model": str(model),
        "agent": agent,
        "training": settings,
        "objective": {"name": objective},
        "seed": seed,
    }
    return app.train(out, inputs, options)


def team_of(folder, **adapters):
    folder.mkdir()
    policies.write(folder, {a: policy.digest_of(f / policy.ADAPTER) for a, f in adapters.items()}, adapters)
    return folder


def weights(folder):
    return (folder / policy.ADAPTER).read_bytes()


def played_by(folder, spoken):
    """A team whose agents have policies of these digests."""
    folder.mkdir()
    rows = {agent: {"digest": spoken.get(agent, "base"), "shares": "", "base": ""} for agent in AGENTS}
    (folder / policies.FILE).write_text(json.dumps(rows))
    return folder


def test_what_a_guest_said_is_trained_on_by_nobody(shards, batched, tmp_path):
    """The shards were played by untrained agents: since then the critic has learned, so its turns are another policy's."""
    out = tmp_path / "out"
    out.mkdir()
    inputs = {"rollout": shards, "grade": shards, "assign": shards}
    options = {"agents": AGENTS, "advantage": {"name": "grpo"}, "objective": {"name": "grpo"}}
    now = played_by(tmp_path / "now", {"critic": "learned"})
    facts = app.batch(out, {**inputs, "policies": [now]}, options)
    assert facts["critic"] == {"turns": 0, "rows": 0} and facts["solver"] == batched[1]["solver"]


def test_rows_of_agents_that_share_a_policy_are_one_set(shards, batched, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    options = {"agents": ["solver"], "advantage": {"name": "grpo"}, "objective": {"name": "grpo"}}
    inputs = {"rollout": shards, "grade": shards, "assign": shards}
    facts = app.batch(out, inputs, {**options, "share": {"critic": "solver"}})
    both = [Rows.load(batched[0] / f"{agent}.npz") for agent in ("solver", "critic")]
    together = Rows.load(out / "solver.npz")
    assert facts["solver"]["rows"] == len(together) == sum(map(len, both)) and list(facts) == ["solver"]
    ids = [sorted(row.tobytes() for part in parts for row in part.completions) for parts in ([together], both)]
    assert ids[0] == ids[1] and together.advantages.sum() == pytest.approx(sum(r.advantages.sum() for r in both))


def test_a_batch_holds_the_tokens_that_were_sampled_of_turns_with_an_advantage(shards, batched):
    out, facts = batched
    assert {agent: facts[agent]["rows"] for agent in AGENTS} == {
        "solver": 12,
        "critic": 12,
        "reviser": 0,
        "verifier": 0,
    }
    turns = [
        turn for t in traces.stream([s / traces.FILE for s in shards]) for turn in t.turns if turn.agent == "critic"
    ]
    rows = Rows.load(out / "critic.npz")
    assert models.same(rows.completions, [turn.completion_ids for turn in turns])
    assert models.same(rows.prompts, [turn.prompt_ids for turn in turns])
    assert models.same(rows.logprobs, [turn.logprobs for turn in turns])
    assert facts["critic"]["turns"] == len(turns)
    assert np.allclose(rows.advantages, [0.866, -0.866] * 6, atol=1e-3)


def test_pairs_are_batched_for_an_objective_that_needs_them(shards, tmp_path):
    facts = batch(shards, tmp_path, "dpo")
    rows = Rows.load(tmp_path / "solver.npz")
    assert rows.paired and len(rows) == facts["solver"]["rows"] > 0 and len(rows) % 2 == 0
    assert all(np.array_equal(rows.prompts[i], rows.prompts[i + 1]) for i in range(0, len(rows), 2))


def test_an_adapter_is_trained_and_its_files_say_how(tiny_model, batched, tmp_path):
    facts = train(tiny_model, tmp_path / "out", batched[0])
    assert (
        facts["steps"] == 3
        and facts["rows"] == 12
        and facts["digest"] == policy.digest_of(tmp_path / "out" / policy.ADAPTER)
    )
    log = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert [m["step"] for m in log] == [1, 2, 3] and log[-1] == facts["last"]
    text = (tmp_path / "out" / "adapter_config.json").read_text()
    assert str(tiny_model.parent) not in text and json.loads(text)["target_modules"] == sorted(
        json.loads(text)["target_modules"]
    )
    engine = transformers.load(str(tiny_model), transformers.Options(), "cpu")
    spoken = Policy("solver", facts["digest"], str(tmp_path / "out"))
    assert canary.check(tmp_path / "out", "solver", lambda pairs: engine.score(spoken, pairs)) < 1e-4


def test_the_first_steps_ratios_are_1(tiny_model, batched, tmp_path):
    """The trainer's log-probabilities before any update are those that the engine stored."""
    train(tiny_model, tmp_path / "out", batched[0], step_rows=100)
    (metrics,) = map(json.loads, (tmp_path / "out" / "metrics.jsonl").read_text().splitlines())
    assert metrics["ratio_mean"] == pytest.approx(1.0, abs=1e-4) and metrics["clip_fraction"] == 0


def test_the_same_seed_gives_the_same_bits(tiny_model, batched, tmp_path):
    digests = [
        train(tiny_model, tmp_path / f"{i}", batched[0], seed=seed)["digest"] for i, seed in enumerate((0, 0, 1))
    ]
    assert digests[0] == digests[1] != digests[2]
    names = sorted(f.name for f in (tmp_path / "0").iterdir() if f.name != "metrics.jsonl")
    assert all((tmp_path / "0" / name).read_bytes() == (tmp_path / "1" / name).read_bytes() for name in names)


def test_a_second_round_goes_on_from_the_first_with_its_optimiser(tiny_model, batched, tmp_path):
    train(tiny_model, tmp_path / "one", batched[0])
    team = team_of(tmp_path / "team", solver=tmp_path / "one")
    train(tiny_model, tmp_path / "two", batched[0], team=team)
    last = json.loads((tmp_path / "two" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 6 and weights(tmp_path / "two") != weights(tmp_path / "one")
    (team / "solver" / fit.STATE).unlink()
    train(tiny_model, tmp_path / "without", batched[0], team=team)
    assert weights(tmp_path / "without") != weights(tmp_path / "two")


def test_an_agent_without_rows_keeps_its_adapter_to_the_last_bit(tiny_model, batched, tmp_path):
    models.make_adapter(tiny_model, tmp_path / "given")
    team = team_of(tmp_path / "team", verifier=tmp_path / "given")
    facts = train(tiny_model, tmp_path / "out", batched[0], "verifier", team)
    assert weights(tmp_path / "out") == weights(tmp_path / "given")
    assert (facts["steps"], facts["loss"], facts["last"]) == (0, None, {})
    assert (tmp_path / "out" / canary.FILE).is_file()  # of another agent's rows


def test_a_round_in_which_nobody_has_a_row_keeps_everything(tiny_model, tmp_path):
    """All groups right, or all wrong: nothing to learn, and no fault."""
    (tmp_path / "empty").mkdir()
    for agent in AGENTS:
        Rows([], [], [], np.zeros(0)).save(tmp_path / "empty" / f"{agent}.npz")
    models.make_adapter(tiny_model, tmp_path / "given")
    team = team_of(tmp_path / "team", solver=tmp_path / "given")
    train(tiny_model, tmp_path / "out", tmp_path / "empty", team=team)
    assert weights(tmp_path / "out") == weights(tmp_path / "given")


def test_a_gathered_team_has_the_new_adapters_and_keeps_the_others(tiny_model, batched, tmp_path):
    models.make_adapter(tiny_model, tmp_path / "old")
    team = team_of(tmp_path / "team", solver=tmp_path / "old", critic=tmp_path / "old")
    facts = train(tiny_model, tmp_path / "new", batched[0], "critic")
    (tmp_path / "new" / "facts.json").write_text(json.dumps(facts))
    (tmp_path / "gathered").mkdir()
    policies.gather(tmp_path / "gathered", {"policies": [team], "train": [tmp_path / "new"]}, {})
    found = policies.read(tmp_path / "gathered")
    assert found["critic"].digest == facts["digest"] and found["solver"] == Policy(
        "solver", policies.read(team)["solver"].digest, str(tmp_path / "gathered" / "solver")
    )
    assert weights(tmp_path / "gathered" / "critic") == weights(tmp_path / "new")
    assert weights(tmp_path / "gathered" / "solver") == weights(tmp_path / "old")
    (tmp_path / "adopted").mkdir()
    policies.adopt(tmp_path / "adopted", tmp_path / "gathered")
    assert {a: p.digest for a, p in policies.read(tmp_path / "adopted").items()} == {
        a: p.digest for a, p in found.items()
    }


def test_all_weights_are_saved_as_a_model_that_the_engine_opens(tiny_model, batched, tmp_path):
    train(tiny_model, tmp_path / "out", batched[0], objective="sft", lora=None)
    engine = transformers.load(str(tmp_path / "out"), transformers.Options(), "cpu")
    assert engine.render("", "Solve: 1")[0].endswith("<|assistant|>")
    assert not (tmp_path / "out" / policy.ADAPTER).exists()


def test_a_missing_model_is_named(batched, tmp_path):
    with pytest.raises(MeritError, match="no Hugging Face model folder"):
        train(tmp_path / "nowhere", tmp_path / "out", batched[0])


def test_records_of_the_shards_are_what_was_written(shards):
    """Guards the fixture: sampling as the trainer needs it."""
    assert {json.dumps(asdict(turn.sampling)) for t in traces.read(shards[0] / traces.FILE) for turn in t.turns} == {
        json.dumps(asdict(Sampling(max_new_tokens=5)))
    }
