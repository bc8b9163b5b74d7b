"""The trainer: a step does not depend on how it is split, only an agent's own tokens are learnt, and it resumes exactly."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from apps.records import MeritError
from apps.training import policy
from apps.training.objectives import dpo, grpo, sft
from apps.training.options import Lora, Options
from apps.training.rows import Rows
from apps.training.steps import micro_batches, plan_steps, scale_at
from apps.training.trainer import Trainer
from tests.models import make_adapter, random_ids

LORA = Lora(r=4, alpha=8)
LOSSES = {
    "sft": (lambda b: sft.loss(b, sft.Options()), sft.NEEDS),
    "grpo": (lambda b: grpo.loss(b, grpo.Options()), grpo.NEEDS),
    "dpo": (lambda b: dpo.loss(b, dpo.Options()), dpo.NEEDS),
}


@pytest.fixture(scope="module")
def adapter(tiny_model, tmp_path_factory):
    """With a B that is not 0, so that the policy differs from its reference."""
    folder = tmp_path_factory.mktemp("adapter")
    make_adapter(tiny_model, folder)
    return folder


def some_rows(count=12, seed=0, paired=False, temperature=1.0):
    rng = np.random.default_rng(seed)
    completions = [random_ids(rng, int(n)) for n in rng.integers(1, 12, count)]
    return Rows(
        [random_ids(rng, int(n)) for n in rng.integers(1, 12, count)],
        completions,
        [-rng.random(len(c)).astype(np.float32) * 4 for c in completions],
        rng.normal(size=count),
        temperature,
        paired,
    )


def trainer(model, adapter=None, **options):
    chosen = Options(**{"lora": LORA, **options})
    return Trainer(policy.open_policy(model, adapter, chosen, 5), chosen)


def weights(made):
    return {name: p.detach().clone() for name, p in made.parameters.items()}


def gradient(model, adapter, rows, name, micro_tokens=4096):
    """Loss and gradient of one step over all rows: the clip and the rate leave the gradient where it is."""
    made = trainer(model, adapter, micro_tokens=micro_tokens, clip=1e9, step_rows=len(rows))
    (metrics,) = made.fit(rows, *LOSSES[name], 0)
    return metrics, {n: p.grad.clone() for n, p in made.parameters.items()}


def close(one, other, tolerance=2e-5):
    scale = max(float(g.abs().max()) for g in one.values())
    return all(torch.allclose(one[n], other[n], atol=tolerance * max(1.0, scale), rtol=1e-4) for n in one)


@pytest.mark.parametrize("name", LOSSES)
def test_neither_split_nor_order_changes_a_step(tiny_model, adapter, name):
    rows = some_rows(paired=name == "dpo")
    whole, expected = gradient(tiny_model, adapter, rows, name)
    assert max(float(g.abs().max()) for g in expected.values()) > 1e-3
    unit = 2 if rows.paired else 1
    order = (np.random.default_rng(1).permutation(12 // unit)[:, None] * unit + np.arange(unit)).ravel()
    fields = ("prompts", "completions", "logprobs")
    shuffled = replace(
        rows, **{f: [getattr(rows, f)[i] for i in order] for f in fields}, advantages=rows.advantages[order]
    )
    for given, tokens in ((rows, 1), (rows, 40), (rows, 90), (shuffled, 40)):
        metrics, found = gradient(tiny_model, adapter, given, name, tokens)
        assert close(expected, found)
        for figure in ("loss", "gradient_norm", "tokens", *set(whole) - {"step", "lr"}):
            assert math.isclose(metrics[figure], whole[figure], rel_tol=1e-4, abs_tol=1e-5), figure


def logprobs_by_hand(made, rows, i):
    """Of row i's completion, from full logits."""
    ids = torch.from_numpy(np.concatenate([rows.prompts[i], rows.completions[i]]).astype(np.int64))[None]
    table = (made.model(input_ids=ids).logits[0].float() / rows.temperature).log_softmax(-1)
    start = len(rows.prompts[i])
    return torch.stack([table[start + t - 1, token] for t, token in enumerate(rows.completions[i].tolist())])


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_loss_is_that_of_full_logits_over_completion_tokens(tiny_model, adapter, temperature):
    rows = some_rows(temperature=temperature)
    made = trainer(tiny_model, adapter, step_rows=12, micro_tokens=60, lr=1e-12)
    by_hand = torch.cat([logprobs_by_hand(made, rows, i) for i in range(12)])
    loss = -by_hand.mean()
    wanted = torch.autograd.grad(loss, list(made.parameters.values()))
    (metrics,) = made.fit(rows, *LOSSES["sft"], 0)
    assert math.isclose(metrics["loss"], loss.item(), rel_tol=1e-5)
    assert metrics["tokens"] == sum(map(len, rows.completions))
    assert math.isclose(metrics["gradient_norm"], float(torch.cat([g.ravel() for g in wanted]).norm()), rel_tol=1e-4)


def test_the_temperature_of_the_sampler_is_applied(tiny_model, adapter):
    cold, warm = (gradient(tiny_model, adapter, some_rows(temperature=t), "sft")[0]["loss"] for t in (0.5, 1.0))
    assert abs(cold - warm) > 0.1


def test_the_denominator_is_that_of_the_step_and_not_of_its_parts(tiny_model, adapter):
    """One row of one token and one of eleven: a mean of means would weigh the short one half."""
    rng = np.random.default_rng(3)
    rows = Rows(
        [random_ids(rng, 3)] * 2, [random_ids(rng, 1), random_ids(rng, 11)], [np.zeros(0, np.float32)] * 2, np.ones(2)
    )
    made = trainer(tiny_model, adapter)
    short, long = (logprobs_by_hand(made, rows, i).detach() for i in (0, 1))
    metrics, _ = gradient(tiny_model, adapter, rows, "sft", micro_tokens=1)
    assert math.isclose(metrics["loss"], -float(short.sum() + long.sum()) / 12, rel_tol=1e-5)
    assert abs(metrics["loss"] + float(short.mean() + long.mean()) / 2) > 1e-3


def test_prompts_carry_no_loss(tiny_model, adapter):
    """Own tokens at the same places after the same prompts: the batch holds their log-probabilities and no others."""
    rows = some_rows(4)
    made = trainer(tiny_model, adapter)
    micro = np.arange(4)
    batch = made.batch(rows, micro, frozenset(), {"tokens": 1.0, "sequences": 4.0, "pairs": 0.0})
    assert batch.mask_BT.sum(1).tolist() == [len(c) for c in rows.completions]
    for i in micro:
        n = len(rows.completions[i])
        assert torch.allclose(batch.logprobs_BT[i, :n], logprobs_by_hand(made, rows, i), atol=1e-4)
        assert not batch.logprobs_BT[i, n:].any()


def test_a_row_without_a_prompt_learns_all_but_its_first_token(tiny_model, adapter):
    rng = np.random.default_rng(0)
    rows = Rows([np.zeros(0, np.int32)], [random_ids(rng, 5)], [np.zeros(0, np.float32)], np.ones(1))
    made = trainer(tiny_model, adapter)
    split = Rows([rows.completions[0][:1]], [rows.completions[0][1:]], rows.logprobs, rows.advantages)
    wanted = -logprobs_by_hand(made, split, 0).mean().item()
    (metrics,) = made.fit(rows, *LOSSES["sft"], 0)
    assert metrics["tokens"] == 4 and math.isclose(metrics["loss"], wanted, rel_tol=1e-5)


def test_the_reference_is_the_base_model_and_carries_no_gradient(tiny_model, adapter):
    rows = some_rows(4)
    made = trainer(tiny_model, adapter)
    counts = {"tokens": 1.0, "sequences": 4.0, "pairs": 2.0}
    batch = made.batch(rows, np.arange(4), frozenset({"reference"}), counts)
    base = trainer(tiny_model).batch(rows, np.arange(4), frozenset(), counts)  # a new adapter changes nothing
    assert torch.allclose(batch.reference_BT, base.logprobs_BT, atol=1e-5) and not batch.reference_BT.requires_grad
    assert float((batch.reference_BT - batch.logprobs_BT.detach()).abs().max()) > 0.01


def test_training_goes_on_bit_for_bit_from_a_saved_state(tiny_model, tmp_path):
    from safetensors.torch import load_file, save_file

    parts = [some_rows(8, seed=s) for s in range(2)]
    straight = trainer(tiny_model, step_rows=4)
    for part in parts:
        assert len(list(straight.fit(part, *LOSSES["grpo"], 3))) == 2
    first = trainer(tiny_model, step_rows=4)
    list(first.fit(parts[0], *LOSSES["grpo"], 3))
    policy.save(first.model, tiny_model, tmp_path)
    save_file(first.state(), tmp_path / "state")
    second = trainer(tiny_model, tmp_path, step_rows=4)
    second.restore(load_file(tmp_path / "state"))
    list(second.fit(parts[1], *LOSSES["grpo"], 3))
    assert second.steps == straight.steps == 4
    then, now = weights(first), weights(straight)
    moved = [float((now[n] - then[n]).abs().max()) for n in then]
    assert max(moved) > 1e-4
    assert all(torch.equal(p, second.parameters[n]) for n, p in straight.parameters.items())
    assert all(torch.equal(v, second.state()[k]) for k, v in straight.state().items())
    forgetful = trainer(tiny_model, tmp_path, step_rows=4)
    list(forgetful.fit(parts[1], *LOSSES["grpo"], 3))
    assert not all(torch.equal(p, forgetful.parameters[n]) for n, p in straight.parameters.items())


def test_the_same_seed_gives_the_same_bits_and_another_one_others(tiny_model):
    def trained(seed):
        made = trainer(tiny_model, step_rows=3)
        list(made.fit(some_rows(), *LOSSES["grpo"], seed))
        return weights(made)

    one, again, other = trained(1), trained(1), trained(2)
    assert all(torch.equal(one[n], again[n]) for n in one)
    assert not all(torch.equal(one[n], other[n]) for n in one)


def test_training_raises_the_likelihood_of_what_it_learns(tiny_model):
    made = trainer(tiny_model, lr=1e-2, epochs=10, step_rows=12)
    losses = [metrics["loss"] for metrics in made.fit(some_rows(), *LOSSES["sft"], 0)]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("step_rows", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("paired", [False, True])
def test_every_row_comes_once_an_epoch_and_pairs_are_never_split(step_rows, paired):
    rows, unit = some_rows(14, paired=paired), 2 if paired else 1
    plan = plan_steps(rows, Options(step_rows=step_rows, epochs=3), 0)
    assert all(0 < len(step) <= max(unit, step_rows) for step in plan)
    seen = np.concatenate(plan)
    assert all(sorted(seen[i : i + 14]) == list(range(14)) for i in range(0, 42, 14))
    for step in plan:
        for tokens in (1, 30, 4096):
            parts = list(micro_batches(rows, step, tokens))
            assert sorted(np.concatenate(parts)) == sorted(step)
            assert all(len(p) == unit or rows.lengths[p].sum() <= tokens for p in parts)
            if paired:
                assert all((p.reshape(-1, 2) == p[::2, None] + [0, 1]).all() and not (p[::2] % 2).any() for p in parts)


def test_a_schedule_rises_and_falls_within_one_call(tiny_model):
    assert [scale_at(s, 4, Options()) for s in range(4)] == [1.0] * 4
    linear = Options(schedule="linear", warmup=2, floor=0.1)
    assert np.allclose([scale_at(s, 6, linear) for s in range(6)], [0.5, 1, 1, 0.775, 0.55, 0.325])
    assert math.isclose(scale_at(5, 10, Options(schedule="cosine")), 0.5)
    made = trainer(tiny_model, schedule="linear", step_rows=4, lr=1.0e-3)
    first, second = ([m["lr"] for m in made.fit(some_rows(), *LOSSES["sft"], 0)] for _ in range(2))
    assert first == second and np.allclose(first, [1e-3, 2e-3 / 3, 1e-3 / 3])
    assert made.steps == 6


def test_a_loss_that_is_no_number_stops_and_names_its_rows(tiny_model):
    rows = some_rows(4)
    rows.advantages[2] = np.nan
    made = trainer(tiny_model, micro_tokens=1)
    before = weights(made)
    with pytest.raises(MeritError, match=r"the loss became nan at step 1, in rows \[2\]"):
        list(made.fit(rows, *LOSSES["grpo"], 0))
    assert all(torch.equal(before[n], p) for n, p in made.parameters.items())


def test_a_row_longer_than_the_context_is_named(tiny_model):
    rows = some_rows(3)
    rows.completions[1] = np.ones(300, np.int32)
    with pytest.raises(
        MeritError, match=r"row 1 has 3.. tokens \(. of prompt, 300 of completion\), .* of 256; of 3 rows 1"
    ):
        list(trainer(tiny_model).fit(rows, *LOSSES["sft"], 0))


def test_a_row_of_another_vocabulary_is_named(tiny_model):
    for token, said in (
        (100_000, "has the token 100000, and the model's vocabulary ends at"),
        (-2, "has the token -2"),
    ):
        rows = some_rows(3)
        rows.completions[1][0] = token
        rows = replace(rows, names=["a", "trace 't#1', turn 'solver.0'", "c"])
        with pytest.raises(MeritError, match=rf"row 1 \(trace 't#1', turn 'solver.0'\) {said}"):
            list(trainer(tiny_model).fit(rows, *LOSSES["sft"], 0))


def test_half_a_pair_and_a_step_without_loss_are_named_before_anything_is_trained(tiny_model):
    made, rows = trainer(tiny_model, step_rows=2), some_rows(4, paired=True)
    rows.completions[3] = np.zeros(0, np.int32)
    with pytest.raises(MeritError, match="pair 1 has no rejected completion: row 3 is empty"):
        list(made.fit(rows, *LOSSES["dpo"], 0))
    silent = replace(some_rows(4), columns={"mask": [np.zeros(len(c), np.float32) for c in some_rows(4).completions]})
    with pytest.raises(MeritError, match="an empty batch: in row . and the 1 others of its step no token carries loss"):
        list(made.fit(silent, *LOSSES["sft"], 0))
    assert made.steps == 0


def test_a_reference_is_not_made_up_where_all_weights_are_trained(tiny_model):
    with pytest.raises(MeritError, match="training.lora"):
        list(trainer(tiny_model, lora=None).fit(some_rows(paired=True), *LOSSES["dpo"], 0))


def test_no_rows_train_nothing(tiny_model, adapter):
    made = trainer(tiny_model, adapter)
    before = weights(made)
    assert list(made.fit(Rows([], [], [], np.zeros(0)), *LOSSES["grpo"], 0)) == []
    assert all(torch.equal(before[n], p) for n, p in made.parameters.items()) and made.steps == 0


def test_only_the_adapter_is_trained(tiny_model):
    made = trainer(tiny_model)
    frozen = {n: p.detach().clone() for n, p in made.model.named_parameters() if not p.requires_grad}
    list(made.fit(some_rows(), *LOSSES["grpo"], 0))
    assert made.parameters and all("lora_" in name for name in made.parameters)
    assert all(torch.equal(frozen[n], p) for n, p in made.model.named_parameters() if n in frozen)
