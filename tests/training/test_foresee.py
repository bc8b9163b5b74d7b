"""Value models and the reference in the stages of training: what they read, what they say, what they are taught."""

from __future__ import annotations

import numpy as np
import pytest

from apps import policies
from apps.credit import results
from apps.credit.turns import valued
from apps.inference import traces
from apps.inference.driver import Start, Team, Voice, grow_tree, perform
from apps.inference.engines import transformers
from apps.records import Credit, Graded, MeritError, Policy, Sampling, Verdict
from apps.reward import verdicts
from apps.training import app, build, foresee
from apps.training.advantages import gae
from apps.training.options import Options
from apps.training.rows import Rows
from apps.training.trainer import Trainer
from tests import models
from tests.models import ids, same
from tests.training.test_build import trace, turn, values

AGENTS = ["solver", "critic", "reviser", "verifier"]
READING = {"dtype": "float32"}


@pytest.fixture(scope="module")
def engine(tiny_model):
    return transformers.load(str(tiny_model), transformers.Options(), "cpu")


@pytest.fixture(scope="module")
def shards(engine, tmp_path_factory):
    """Two shards, one of them a tree; every other trace is right, and all its turns are worth 1."""
    team = Team(
        "solve_critique_revise", {}, models.PROMPTS, {a: Policy(a) for a in AGENTS}, Sampling(0.8, max_new_tokens=4)
    )
    first, second, third = models.tasks(3)
    plays = [
        perform([Start(task, str(k)) for task in (first, second) for k in range(2)], Voice(team, engine, "s")),
        grow_tree([third], {"solver": 2, "critic": 2}, Voice(team, engine, "s")),
    ]
    folders = []
    for number, played in enumerate(plays):
        folder = tmp_path_factory.mktemp(f"shard{number}")
        traces.write(folder / traces.FILE, played)
        graded = [Graded(t, Verdict(float(i % 2), "1", ""), (None,) * len(t.turns)) for i, t in enumerate(played)]
        verdicts.write(folder, graded)
        results.write(
            folder, [Credit(t.id, (float(i % 2),) * len(t.turns), (0.0,) * len(t.turns)) for i, t in enumerate(played)]
        )
        folders.append(folder)
    return folders


def made(folder):
    folder.mkdir()
    return folder


def stage(function, out, model, inputs, **options):
    return function(made(out), {k: v if isinstance(v, list) else [v] for k, v in inputs.items()},
                    {"model": str(model), "reading": READING, **options})  # fmt: skip


def untrained(folder, *names):
    policies.write(made(folder), dict.fromkeys(names, "base"), {})
    return folder


def test_turns_are_met_in_the_order_in_which_they_are_valued(shards):
    played = [t for shard in shards for t in traces.read(shard / traces.FILE)]
    zeros = [Credit(t.id, (0.0,) * len(t.turns), (0.0,) * len(t.turns)) for t in played]
    assert [id(t) for t, _ in foresee.spoken(played)] == [id(t) for t, _ in valued(played, zeros, [0.0] * len(played))]
    assert len(foresee.spoken(played)) < sum(len(t.turns) for t in played), "some are shared"


def test_a_view_of_ones_own_and_of_the_team():
    solver, critic = turn("solver", 1, 11), turn("critic", 2, 12)
    said = foresee.spoken([trace(0, solver, turn("critic", 3, 9, stand_in="base"), critic)])
    assert [t for t, _ in said] == [solver, critic]
    assert foresee.view_of(said[1], "own", 99).tolist() == [2]
    assert foresee.view_of(said[1], "team", 99).tolist() == [1, 11, 4, 3, 9, 4, 2]
    assert foresee.view_of(said[1], "team", 5).tolist() == [9, 4, 2]  # a completion of two tokens: the beginning goes
    assert foresee.learner("critic", "own") == "critic.value" and foresee.learner("critic", "team") == "team.value"


def test_what_comes_after_a_turn_is_the_agents_own_next_turn_by_its_share():
    root = turn("solver", said=1)
    ends = [
        trace("0", root, turn("critic"), turn("solver", said=2)),
        trace("1", root, turn("solver", said=3)),
        trace("2", root),
    ]
    turns = values(ends, [[0.0] * len(t.turns) for t in ends])
    after = foresee.follows(turns, ends)
    assert after[id(root)] == (
        (("t#0", "solver", 1), pytest.approx(1 / 3)),
        (("t#1", "solver", 1), pytest.approx(1 / 3)),
    )
    assert all(after[id(t)] == () for t, _ in turns if t is not root)


def test_the_reference_of_plays_of_the_base_model_is_what_was_sampled(tiny_model, shards, tmp_path):
    facts = stage(app.reference, tmp_path / "r", tiny_model, {"rollout": shards[0]})
    turns = [t for t, _ in foresee.spoken(traces.read(shards[0] / traces.FILE))]
    found = foresee.read([tmp_path / "r"], turns)
    for one, row in zip(turns, found, strict=True):
        assert np.allclose(row, one.logprobs, atol=1e-4)
    assert facts["turns"] == len(turns) and abs(facts["divergence"]) < 1e-4


def test_figures_of_other_turns_are_refused(shards, tmp_path):
    foresee.write(made(tmp_path / "x"), [np.zeros(2)])
    with pytest.raises(MeritError, match="figures of 1 turns meet"):
        foresee.read([tmp_path / "x"], [t for t, _ in foresee.spoken(traces.read(shards[0] / traces.FILE))])


def round_of(tiny_model, shards, tmp_path, team, view, number, **advantage):
    """values → reference → batch, as a round has them."""
    inputs = {"rollout": shards, "grade": shards, "assign": shards, "values": [], "reference": []}
    for i, shard in enumerate(shards):
        for name, function, more in (("values", app.values, {"policies": team}), ("reference", app.reference, {})):
            out = tmp_path / f"{name}{number}{i}"
            stage(function, out, tiny_model, {"rollout": shard, **more}, view=view)
            inputs[name].append(out)
    out = tmp_path / f"batch{number}"
    facts = stage(app.batch, out, tiny_model, inputs, view=view, agents=AGENTS, learners=foresee.learners(AGENTS, view),
                  advantage={"name": "gae", "whiten": False, **advantage}, objective={"name": "ppo"})  # fmt: skip
    return out, facts


@pytest.mark.parametrize(("view", "who"), [("own", "solver.value"), ("team", "team.value")])
def test_a_value_model_learns_the_returns_of_a_round_and_says_them_in_the_next(tiny_model, shards, tmp_path, view, who):
    names = list(dict.fromkeys(foresee.learner(agent, view) for agent in AGENTS))
    team = untrained(tmp_path / "none", *names)
    first, facts = round_of(tiny_model, shards, tmp_path, team, view, 1)
    rows = Rows.load(first / f"{who}.npz")
    assert facts[who]["explained"] == 0 and len(rows) == facts[who]["rows"]
    assert not np.concatenate(rows.columns["values"]).any()
    plain = Rows.load(first / "solver.npz")
    discounted = 0.95 ** np.arange(len(plain.completions[0]))[::-1]  # V = 0, λ = .95: the credit at the last token
    assert np.allclose(plain.columns["advantages"][0], discounted * plain.columns["advantages"][0][-1])
    options = {"agent": who, "objective": {"name": "value", "clip": None}, "seed": 0,
               "training": {"epochs": 30, "lr": 5e-3, "step_rows": 8}}  # fmt: skip
    taught = stage(app.train, tmp_path / "taught", tiny_model, {"batch": first, "policies": team}, **options)
    gathered = made(tmp_path / "gathered")
    digests = {name: taught["digest"] if name == who else "base" for name in names}
    policies.write(gathered, digests, {who: tmp_path / "taught"})
    second, facts = round_of(tiny_model, shards, tmp_path, gathered, view, 2)
    assert facts[who]["explained"] > 0.5
    again, before = Rows.load(second / f"{who}.npz"), Rows.load(first / f"{who}.npz")
    assert same(again.prompts, before.prompts)
    error = np.concatenate(again.columns["values"]) - np.concatenate(before.columns["targets"])
    assert np.mean(error**2) < 0.5 * np.mean(np.concatenate(before.columns["targets"]) ** 2)


def test_the_kl_in_the_reward_reaches_the_rows(tiny_model, shards, tmp_path):
    """Plays of the base model itself have no KL; a reference that is told otherwise changes just that."""
    team = untrained(tmp_path / "none", *(foresee.learner(agent, "own") for agent in AGENTS))
    plain, _ = round_of(tiny_model, shards, tmp_path, team, "own", 1, lam=1.0)
    held, _ = round_of(tiny_model, shards, tmp_path, team, "own", 2, lam=1.0, kl_in_reward=5.0)
    one, other = (Rows.load(folder / "critic.npz") for folder in (plain, held))
    told = {c.tobytes(): a for c, a in zip(other.completions, other.columns["advantages"], strict=True)}
    assert all(
        np.allclose(told[c.tobytes()], a, atol=1e-2)
        for c, a in zip(one.completions, one.columns["advantages"], strict=True)
    )


def test_the_divergence_is_positive_where_a_token_is_likelier_than_under_the_reference():
    spoken = turn("solver")  # log-probabilities −.5 and −.25
    (told,) = foresee.told(values([trace(0, spoken)], [[1.0]]), [trace(0, spoken)], None, [np.array([-1.5, -0.25])])
    assert told[1].tokens.divergence.tolist() == [1.0, 0.0] and told[1].tokens.values.tolist() == [0.0, 0.0]
    options = gae.Options(lam=1.0, kl_in_reward=0.5, whiten=False)
    assert gae.advantages([told[1]], options)[0].tolist() == [0.5, 1.0]


def test_rows_of_token_advantages_have_a_column_and_lose_what_has_no_gradient():
    turns = values([trace(i, turn("solver", said=i)) for i in range(3)], [[1.0]] * 3)
    given = [np.array([0.5, -0.25]), np.zeros(2), np.full(2, np.nan)]
    rows = build.rows_of("solver", turns, lambda t: given, {"advantages"})
    assert same(rows.columns["advantages"], [np.array([0.5, -0.25], np.float32)]) and rows.advantages.tolist() == [
        0.125
    ]
    told = build.rows_of("solver", turns, lambda t: given, frozenset())  # SFT: by the mean
    assert len(told) == 1


def test_the_trainer_reads_values_as_the_objective_does(tiny_model):
    from apps.training import policy

    opened = policy.open_policy(tiny_model, None, Options(), 0)
    policy.add_scalar_head(opened, tiny_model)
    trainer = Trainer(opened, Options())
    trainer.torch.nn.init.normal_(opened.scalar_head.weight)
    rows = Rows([ids(5, 6), ids(7)], [ids(8, 9, 10), ids(11)], [np.zeros(0, np.float32)] * 2, np.ones(2))
    counts = {"tokens": 4.0, "sequences": 2.0}
    read = trainer.batch(rows, np.arange(2), frozenset({"values"}), counts).values_BT.detach().numpy()
    found = foresee.expectations(trainer, rows)
    assert np.allclose(found[0], read[0], atol=1e-5) and np.allclose(found[1], read[1, :1], atol=1e-5)
    assert np.ptp(found[0]) > 0


def test_advantages_by_the_estimator_alone_are_those_of_the_rows(tiny_model, shards, tmp_path):
    team = untrained(tmp_path / "none", *(foresee.learner(agent, "own") for agent in AGENTS))
    out, _ = round_of(tiny_model, shards, tmp_path, team, "own", 1)
    played = [t for shard in shards for t in traces.read(shard / traces.FILE)]
    worth = [(float(i % 2),) * 9 for shard in shards for i, _ in enumerate(traces.read(shard / traces.FILE))]
    credit = [Credit(t.id, w[: len(t.turns)], (0.0,) * len(t.turns)) for t, w in zip(played, worth, strict=True)]
    turns = foresee.told(valued(played, credit, [0.0] * len(played)), played, None, None)
    expected = gae.advantages([row for _, row in turns], gae.Options(whiten=False))
    kept = [a for a, (t, _) in zip(expected, turns, strict=True) if t.agent == "solver" and a.any()]
    found = Rows.load(out / "solver.npz").columns["advantages"]
    assert len(found) == len(kept) and all(np.allclose(a, b) for a, b in zip(found, kept, strict=True))
