"""What objectives say of a step, in plain Python: metrics are read by people and by health checks, so they are exact too.

And the options that the comparisons with formulas elsewhere leave at their defaults.
"""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
import torch

from apps.training.batch import Batch
from apps.training.objectives import scores as of_scores
from tests.training.test_policy_gradient_objectives import random_batch, scalar_surrogate, tokens_of
from tests.training.test_policy_gradient_objectives import run as run_policy
from tests.training.test_preference_objectives import batch_of, mean, odds, plain_rows, ratio, run, total

SEEDS = range(4)
MARGIN = {  # of a pair, at options away from the defaults
    "dpo": ({"beta": 0.7}, lambda won, lost: 0.7 * (ratio(won) - ratio(lost))),
    "cdpo": ({"beta": 0.7, "epsilon": 0.3}, lambda won, lost: 0.7 * (ratio(won) - ratio(lost))),
    "ipo": ({"tau": 0.4}, lambda won, lost: ratio(won) - ratio(lost)),
    "hinge": ({"beta": 0.6}, lambda won, lost: 0.6 * (ratio(won) - ratio(lost))),
    "slic_hf": ({"weight": 0.3}, lambda won, lost: total(won) - total(lost)),
    "cpo": ({"beta": 0.7}, lambda won, lost: 0.7 * (total(won) - total(lost))),
    "orpo": ({"weight": 0.6}, lambda won, lost: math.log(odds(won) / odds(lost))),
    "r_dpo": ({"beta": 0.7, "alpha": 0.3}, lambda won, lost: 0.7 * (ratio(won) - ratio(lost))),
    "simpo": ({"beta": 1.7, "gamma": 0.4}, lambda won, lost: 1.7 * (mean(won) - mean(lost))),
}
LIKELIHOOD = {"slic_hf": total, "cpo": total, "orpo": mean}


@pytest.mark.parametrize("name", MARGIN)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_plain_metrics_of_pairs(name, seed):
    options, margin = MARGIN[name]
    rows = plain_rows(seed, 6)
    pairs = list(zip(rows[0::2], rows[1::2], strict=True))
    margins = [margin(*pair) for pair in pairs]
    expected = {"margin": sum(margins) / 3, "pair_accuracy": sum(m > 0 for m in margins) / 3}
    if name in LIKELIHOOD:
        expected["nll"] = -sum(LIKELIHOOD[name](won) for won, _ in pairs) / 3
    assert run(name, batch_of(rows), **options)[1] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_plain_ipo_of_token_means(seed):
    rows = plain_rows(seed, 6)
    apart = [ratio(w) / len(w) - ratio(x) / len(x) for w, x in zip(rows[0::2], rows[1::2], strict=True)]
    value, metrics = run("ipo", batch_of(rows), tau=0.4, per_token=True)
    assert value.item() == pytest.approx(sum((a - 1.25) ** 2 for a in apart) / 3)
    assert metrics["margin"] == pytest.approx(sum(apart) / 3)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_plain_metrics_of_kto_and_rrhf(seed):
    rows, rng = plain_rows(seed, 5), random.Random(seed)
    signs = [1, -1, 1, 1, -1]
    _, metrics = run("kto", batch_of(rows, [s * rng.uniform(0.1, 2) for s in signs], mismatch=0.4), beta=0.8)
    gains = [0.8 * s * (ratio(row) - 0.4) for s, row in zip(signs, rows, strict=True)]
    assert metrics == pytest.approx({"reference_point": 0.4, "gain": sum(gains) / 5, "desirable": 0.6})
    worth, states = [2.0, 1.0, 0.0, 1.0, 3.0], [0, 0, 0, 1, 1]
    _, metrics = run("rrhf", batch_of(rows, worth, states), weight=0.3)
    disorder = sum(
        max(0.0, mean(rows[i]) - mean(rows[j]))
        for i in range(5)
        for j in range(5)
        if states[i] == states[j] and worth[i] < worth[j]
    )
    assert metrics == pytest.approx({"disorder": disorder / 2, "nll": -(total(rows[0]) + total(rows[4])) / 2})


CLIPS = {"ppo": (0.2, 0.2), "grpo": (0.2, 0.2), "dr_grpo": (0.2, 0.2), "dapo": (0.2, 0.28)}


@pytest.mark.parametrize("name", [*CLIPS, "gspo", "cispo", "reinforce"])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_plain_metrics_of_policy_gradient(name, seed):
    batch = random_batch(seed, spread=3.0)
    rows = tokens_of(batch)
    flat = [token for row in rows for token in row]
    expected = {"kl": sum(math.exp(r - p) - (r - p) - 1 for p, _, r, _ in flat) / len(flat)}
    low, high = CLIPS.get(name, (3e-4, 4e-4))
    if name == "gspo":
        seen = [(math.exp(sum(p - o for p, o, _, _ in row) / len(row)), row[0][3]) for row in rows]
    else:
        seen = [(math.exp(p - o), a) for p, o, _, a in flat]
    if name == "cispo":
        bites = [s > 5.0 for s, _ in seen]
    else:
        bites = [(s > 1 + high and a > 0) or (s < 1 - low and a < 0) for s, a in seen]
    if name != "reinforce":
        expected |= {"clip_fraction": sum(bites) / len(seen), "ratio_mean": sum(s for s, _ in seen) / len(seen)}
    assert run_policy(name, batch, beta=0.1)[1] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_plain_share_of_tokens_that_a_dual_clip_stops(seed):
    """A good token beyond c, but within the upper bound, is not stopped."""
    batch = random_batch(seed, spread=1.2)
    flat = [token for row in tokens_of(batch) for token in row]
    seen = [(math.exp(p - o), a) for p, o, _, a in flat]
    stopped = sum((s > 1.6 and a > 0) or ((s < 0.8 or s > 1.05) and a < 0) for s, a in seen)
    _, metrics = run_policy("ppo", batch, clip_high=0.6, dual_clip=1.05)
    assert metrics["clip_fraction"] == pytest.approx(stopped / len(seen))


@pytest.mark.parametrize("seed", SEEDS)
def test_plain_ppo_with_a_correction_and_a_kl(seed):
    batch, apart = engine_and_trainer(seed)
    rows, anchor = tokens_of(batch), batch.anchor_BT.tolist()
    own = [[a for a, m in zip(*pair, strict=True) if m] for pair in zip(anchor, batch.mask_BT.tolist(), strict=True)]
    gain = 0.0
    for row, a, x in zip(rows, own, apart, strict=True):
        for (p, _, r, advantage), b, d in zip(row, a, x, strict=True):
            gain += (
                min(1.2, math.exp(d)) * scalar_surrogate(math.exp(p - b), advantage, 0.2, 0.2) - 0.3 * (r - p) ** 2 / 2
            )
    value, _ = run_policy("ppo", batch, truncation=1.2, beta=0.3, kl="k2")
    assert value.item() == pytest.approx(-gain / sum(map(len, rows)))


def scored(seed, rows=6, length=4):
    """A batch of scalar heads; the last own token of a row is seldom the last place."""
    generator = torch.Generator().manual_seed(seed)
    scores, old, values = (torch.randn((rows, length), generator=generator, dtype=torch.float64) for _ in range(3))
    targets = torch.randint(0, 2, (rows, length), generator=generator).double()
    mask = (torch.rand((rows, length), generator=generator) < 0.6).double()
    mask[:, 0] = 1
    given = {"scores_BT": scores.requires_grad_(True), "targets_BT": targets, "values_BT": values, "old_values_BT": old}
    return Batch(None, mask, float(mask.sum()), rows, rows / 2, **given)


def own_places(batch):
    return [[t for t, m in enumerate(row) if m] for row in batch.mask_BT.tolist()]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_plain_metrics_of_outcome_process_and_value(seed):
    batch = scored(seed)
    places, s, y = own_places(batch), batch.scores_BT.tolist(), batch.targets_BT.tolist()
    ends = [(s[b][own[-1]], y[b][own[-1]]) for b, own in enumerate(places)]
    right = sum((a > 0) == (t > 0.5) for a, t in ends)
    expected = {"accuracy": right / 6, "reward": sum(a for a, _ in ends) / 6}
    for tokens in ("last", "all"):
        assert run("outcome", batch, tokens=tokens)[1] == pytest.approx(expected)
    flat = [(b, t) for b, own in enumerate(places) for t in own]
    told = sum((s[b][t] > 0) == (y[b][t] > 0.5) for b, t in flat)
    assert run("process", batch)[1] == pytest.approx({"accuracy": told / len(flat)})
    v, old = batch.values_BT.tolist(), batch.old_values_BT.tolist()
    plain = [(v[b][t] - y[b][t]) ** 2 for b, t in flat]
    near = [(max(old[b][t] - 0.2, min(old[b][t] + 0.2, v[b][t])) - y[b][t]) ** 2 for b, t in flat]
    wanted = {
        "clip_fraction": sum(n > p for n, p in zip(near, plain, strict=True)) / len(flat),
        "error": sum(plain) / len(flat),
        "value_mean": sum(v[b][t] for b, t in flat) / len(flat),
        "return_mean": sum(y[b][t] for b, t in flat) / len(flat),
    }
    assert run("value", batch)[1] == pytest.approx(wanted)


@pytest.mark.parametrize(("name", "options"), [("outcome", {"tokens": "all"}), ("process", {})])
def test_a_plain_gap_under_the_mask_gives_no_gradient_though_it_has_a_target(name, options):
    batch = scored(1)
    scores = batch.scores_BT.detach().masked_fill(batch.mask_BT == 0, math.nan).requires_grad_(True)
    value, _ = run(name, replace(batch, scores_BT=scores), **options)
    (slope,) = torch.autograd.grad(value, scores)
    assert torch.isfinite(slope).all() and slope.any()


@pytest.mark.parametrize(("name", "options"), [("simpo", {"beta": 1.0, "gamma": 0.0}), ("ipo", {"per_token": True})])
def test_a_plain_row_without_own_tokens_has_the_mean_0(name, options):
    rows = plain_rows(1, 2)
    batch = batch_of(rows)
    silent = batch.mask_BT.clone()
    silent[1] = 0
    value, metrics = run(name, replace(batch, mask_BT=silent), **options)
    assert metrics["margin"] == pytest.approx(mean(rows[0]) if name == "simpo" else ratio(rows[0]) / len(rows[0]))
    assert math.isfinite(value.item())


def test_where_there_is_no_target_the_plain_cross_entropy_and_its_gradient_are_0():
    scores = torch.tensor([math.nan, 2.0, 0.0], dtype=torch.float64, requires_grad=True)
    found = of_scores.cross_entropy(scores, torch.tensor([math.nan, math.nan, 1.0], dtype=torch.float64))
    (slope,) = torch.autograd.grad(found.sum(), scores)
    assert found.tolist() == pytest.approx([0.0, 0.0, math.log(2)]) and slope.tolist() == pytest.approx(
        [0.0, 0.0, -0.5]
    )


def engine_and_trainer(seed):
    """A batch whose anchor differs from the engine's log-probabilities, and what is known of each row."""
    batch = random_batch(seed, spread=2.0)
    generator = torch.Generator().manual_seed(seed + 99)
    noise = 1.5 * (torch.rand(batch.old_BT.shape, generator=generator, dtype=torch.float64) - 0.5)
    rubbish = torch.where(batch.mask_BT == 0, 7.0, 0.0)  # under the mask
    anchor = (batch.old_BT + noise + rubbish).requires_grad_(True)
    batch = Batch(**{**{n: getattr(batch, n) for n in batch.__slots__}, "anchor_BT": anchor})
    masks, apart = batch.mask_BT.tolist(), noise.tolist()
    return batch, [[x for x, m in zip(a, row, strict=True) if m] for a, row in zip(apart, masks, strict=True)]


@pytest.mark.parametrize("name", ["ppo", "gspo"])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_plain_metrics_of_a_correction(name, seed):
    batch, apart = engine_and_trainer(seed)
    flat = [x for row in apart for x in row]
    value, metrics = run_policy(name, batch, truncation=1.2, sequence_mask=1.5, beta=0.0)
    assert metrics["mismatch_kl"] == pytest.approx(sum(math.exp(x) - 1 - x for x in flat) / len(flat))
    assert metrics["truncated"] == pytest.approx(sum(math.exp(x) > 1.2 for x in flat) / len(flat))
    assert metrics["masked"] == pytest.approx(sum(sum(row) > math.log(1.5) for row in apart) / len(apart))
    assert torch.autograd.grad(value, batch.anchor_BT, allow_unused=True, retain_graph=True)[0] is not None
    uncut, _ = run_policy("reinforce", batch, truncation=1.2, sequence_mask=1.5, beta=0.0)
    (found,) = torch.autograd.grad(uncut, batch.anchor_BT, allow_unused=True)
    assert found is None or not found.any()  # a weight carries no gradient


@pytest.mark.parametrize("seed", SEEDS)
def test_plain_gspo_with_a_correction_and_a_kl(seed):
    batch, apart = engine_and_trainer(seed)
    rows, anchor = tokens_of(batch), batch.anchor_BT.tolist()
    own = [[a for a, m in zip(*pair, strict=True) if m] for pair in zip(anchor, batch.mask_BT.tolist(), strict=True)]
    gain = 0.0
    for row, a, x in zip(rows, own, apart, strict=True):
        n = len(row)
        s = math.exp(sum(token[0] - b for token, b in zip(row, a, strict=True)) / n)
        kl = sum((r - p) ** 2 / 2 for p, _, r, _ in row) / n
        weight = min(1.2, math.exp(sum(x) / n))
        gain += weight * scalar_surrogate(s, row[0][3], 3e-4, 4e-4) - 0.3 * kl
    value, _ = run_policy("gspo", batch, truncation=1.2, beta=0.3, kl="k2")
    assert value.item() == pytest.approx(-gain / len(rows))
