"""Top-k and top-p: the engine tells what each token was drawn from, and the trainer's probabilities are those of the draw."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.inference import sampler, traces
from apps.inference.driver import Start, Team, Voice, perform
from apps.inference.engines import transformers
from apps.records import MeritError, Policy, Sampling
from apps.training import build, canary, head, policy
from apps.training.objectives import ppo
from apps.training.options import Lora, Options
from apps.training.rows import Rows
from apps.training.trainer import Trainer
from tests import models
from tests.models import ids, same
from tests.training.test_build import by_value, trace, turn, values
from workflows import config, post_train
from workflows.plan import Plan

CUTS = [Sampling(1.0, 6, top_k=5), Sampling(0.7, 6, top_p=0.8), Sampling(1.3, 6, top_p=0.9, top_k=7)]
AGENTS = ["solver", "critic", "reviser", "verifier"]


@pytest.mark.parametrize("sampling", CUTS)
def test_what_is_left_is_what_can_be_drawn(sampling):
    logits = torch.randn(50, 12, generator=torch.Generator().manual_seed(0)) * 2
    left = sampler.survivors(logits, sampling)
    for row, ids_left in zip(sampler.distribution(logits, sampling).exp(), left, strict=True):
        assert ids_left.tolist() == [i for i in range(12) if row[i] > 0] and row[
            ids_left
        ].sum().item() == pytest.approx(1, abs=1e-5)
    assert max(map(len, left)) <= (sampling.top_k or 12) and min(map(len, left)) < 12


def test_nothing_is_told_where_nothing_is_cut():
    logits = torch.zeros(2, 4)
    assert sampler.survivors(logits, Sampling()) is None and sampler.survivors(logits, Sampling(0.0, top_k=3)) is None
    assert sampler.table([np.array([4, 9], np.int32), np.array([7], np.int32)]).tolist() == [[4, 9], [7, -1]]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), temperature=st.sampled_from([0.5, 1.0, 1.7]))
def test_probabilities_among_the_kept_equal_plain_python(seed, temperature):
    rng = np.random.default_rng(seed)
    logits, kept = (
        rng.normal(size=(4, 9)),
        [sorted(rng.choice(9, rng.integers(1, 9), replace=False).tolist()) for _ in range(4)],
    )
    tokens = [int(rng.choice(left)) for left in kept]
    given_NK = torch.from_numpy(sampler.table([np.array(left, np.int32) for left in kept]).astype(np.int64))
    found = head.kept_logprobs(torch.from_numpy(logits), torch.tensor(tokens), temperature, given_NK)
    for row, left, token, (logprob, entropy) in zip(logits, kept, tokens, found.tolist(), strict=True):
        weights = {i: math.exp(row[i] / temperature) for i in left}
        p = {i: w / sum(weights.values()) for i, w in weights.items()}
        assert logprob == pytest.approx(math.log(p[token]), abs=1e-5)
        assert entropy == pytest.approx(-sum(x * math.log(x) for x in p.values()), abs=1e-5)


def test_with_all_ids_kept_it_is_the_whole_distribution_and_its_gradient():
    logits = torch.randn(3, 6, dtype=torch.float32, generator=torch.Generator().manual_seed(1)).requires_grad_(True)
    tokens, everything = torch.tensor([0, 3, 5]), torch.arange(6).expand(3, 6)
    one, other = head.kept_logprobs(logits, tokens, 0.7, everything), head.logprobs_and_entropy(logits, tokens, 0.7)
    assert torch.allclose(one, other, atol=1e-6)
    slopes = [torch.autograd.grad(x.sum(), logits)[0] for x in (one, other)]
    assert torch.allclose(*slopes, atol=1e-6)


def test_a_single_id_left_is_certain_and_has_no_gradient():
    logits = torch.randn(1, 6).requires_grad_(True)
    found = head.kept_logprobs(logits, torch.tensor([2]), 1.0, torch.tensor([[2, -1, -1]]))
    assert found.tolist() == [[0.0, 0.0]] and not torch.autograd.grad(found.sum(), logits)[0].any()


@pytest.fixture(scope="module")
def engine(tiny_model):
    return transformers.load(str(tiny_model), transformers.Options(), "cpu")


def played(engine, sampling, samples=3):
    team = Team("solve_critique_revise", {}, models.PROMPTS, {a: Policy(a) for a in AGENTS}, sampling)
    starts = [Start(task, str(k)) for task in models.tasks(2) for k in range(samples)]
    return perform(starts, Voice(team, engine, "s"))


def rows_of(plays, needs=ppo.NEEDS):
    turns = values(plays, [[float(i % 3 - 1)] * len(t.turns) for i, t in enumerate(plays)])
    return build.rows_of("solver", turns, by_value, needs)


def trainer_of(model, **options):
    chosen = Options(lora=Lora(r=4, alpha=8), **options)
    return Trainer(policy.open_policy(model, None, chosen, 5), chosen)


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("sampling", CUTS)
def test_the_trainers_probabilities_are_those_of_the_draw(tiny_model, engine, tmp_path, sampling, packing):
    """By way of the files that a run has in between."""
    traces.write(tmp_path / "t.h5", played(engine, sampling))
    rows_of(traces.read(tmp_path / "t.h5")).save(tmp_path / "r.npz")
    rows, trainer = Rows.load(tmp_path / "r.npz"), trainer_of(tiny_model, packing=packing)
    assert len(rows.kept) == len(rows) >= 4
    for found, whole, said in zip(
        trainer.score(rows, rows.temperature),
        trainer.score(replace(rows, kept=()), rows.temperature),
        rows.logprobs,
        strict=True,
    ):
        assert np.allclose(found, said, atol=1e-4) and (whole < said + 1e-6).all()
    assert any(
        np.abs(w - s).max() > 0.01
        for w, s in zip(trainer.score(replace(rows, kept=()), rows.temperature), rows.logprobs, strict=True)
    )


def test_training_starts_at_a_ratio_of_one_and_stays_within_what_was_left(tiny_model, engine):
    rows, trainer = rows_of(played(engine, CUTS[0])), trainer_of(tiny_model, lr=1e-2, epochs=4)
    tuned = ppo.Options(beta=0.01, entropy=0.01)
    history = list(trainer.fit(rows, lambda batch: ppo.loss(batch, tuned), ppo.needs(tuned), 0))
    first, last = history[0], history[-1]
    assert first["ratio_mean"] == pytest.approx(1, abs=1e-4) and first["kl"] == pytest.approx(0, abs=1e-6)
    assert first["entropy"] <= math.log(5) + 1e-6 and last["kl"] > 1e-6
    after = [float(s.sum()) for s in trainer.score(rows, rows.temperature)]
    before = [float(s.sum()) for s in rows.logprobs]
    moved = np.array(after) - np.array(before)
    assert moved[rows.advantages > 0].sum() > 0 > moved[rows.advantages < 0].sum()


def test_traces_of_both_kinds_are_read_as_they_were_written(engine, tmp_path):
    plays = [*played(engine, CUTS[0], 1), *played(engine, Sampling(max_new_tokens=4), 1)]
    traces.write(tmp_path / "t.h5", plays)
    for one, other in zip(plays, traces.read(tmp_path / "t.h5"), strict=True):
        for a, b in zip(one.turns, other.turns, strict=True):
            assert (a.kept is None) == (b.kept is None) == a.sampling.whole
            assert a.kept is None or np.array_equal(a.kept, b.kept)


def test_only_a_policy_gradient_reads_the_cut_distribution(engine):
    plays = played(engine, CUTS[0])
    assert len(rows_of(plays, frozenset({"advantages", "reference"})).kept)
    for needs in (frozenset(), frozenset({"pairs"}), frozenset({"advantages", "reference", "mismatch"})):
        assert not len(rows_of(plays, needs).kept)


def test_a_canary_is_heard_under_the_whole_distribution(tiny_model, engine, tmp_path):
    rows, trainer = rows_of(played(engine, CUTS[0])), trainer_of(tiny_model)
    canary.write(tmp_path, rows, trainer.score)
    assert canary.check(tmp_path, "solver", lambda pairs: engine.score(Policy("solver"), pairs)) < 1e-3


def test_a_draw_from_what_is_not_known_is_refused():
    cut = turn("solver", sampling=Sampling(0.7, top_k=3))
    with pytest.raises(MeritError, match="top_k=3.*it is not known what its tokens were drawn from"):
        build.rows_of("solver", values([trace(0, cut)], [[1.0]]), by_value, {"advantages"})
    rows = Rows([ids(1)], [ids(2, 3)], [np.zeros(2, np.float32)], np.ones(1), kept=[np.zeros((1, 4), np.int32)])
    with pytest.raises(MeritError, match="row 0 has 2 completion tokens, but 1 in its column 'kept'"):
        rows.check({"advantages"})


def test_rows_keep_sets_of_different_widths(tmp_path):
    kept = [np.array([[1, 2, 3], [4, -1, -1]], np.int32), np.array([[7]], np.int32)]
    rows = Rows([ids(1)] * 2, [ids(2, 4), ids(7)], [np.zeros(2), np.zeros(1)], np.ones(2), kept=kept)
    rows.save(tmp_path / "r.npz")
    assert same(Rows.load(tmp_path / "r.npz").kept, kept)


@pytest.mark.parametrize(("word", "fine"), [("top_k: 5", True), ("top_p: 0.9", True), ("temperature: 0", False)])
def test_a_run_may_cut_but_not_be_greedy(word, fine):
    chosen = config.load(config.PostTrain, None, ["rounds=1", f"sampling={{{word}}}"])
    if fine:
        assert post_train.dag(chosen, Plan())
    else:
        with pytest.raises(MeritError, match="sampling.temperature > 0 is expected; given 0"):
            post_train.dag(chosen, Plan())
