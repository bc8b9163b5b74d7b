"""Policy-gradient objectives: each against a scalar implementation in plain Python, by hand, and against each other."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from apps import leaf
from apps.training.batch import Batch
from apps.training.objectives import cispo, dr_grpo, gspo, policy_gradient, ppo, reinforce

NAMES = ["reinforce", "ppo", "grpo", "dr_grpo", "dapo", "gspo", "cispo"]
SEEDS = st.integers(0, 2**31)
TENSORS = ("logprobs_BT", "mask_BT", "old_BT", "reference_BT", "advantages_BT")
LENGTH = 7  # L_max of Dr.GRPO
PUBLISHED = {  # clip_low, clip_high, β and the KL's estimator, each from its paper
    "reinforce": (None, None, 0.0, "k2"),
    "ppo": (0.2, 0.2, 0.0, "k2"),
    "grpo": (0.2, 0.2, 0.04, "k3"),
    "dr_grpo": (0.2, 0.2, 0.0, "k2"),
    "dapo": (0.2, 0.28, 0.0, "k2"),
    "gspo": (3e-4, 4e-4, 0.0, "k2"),
    "cispo": (None, None, 0.0, "k2"),
}


def random_batch(seed, rows=5, length=4, spread=1.5, empty_row=False):
    """Random log-probabilities in float64; a row's own tokens have gaps, as after a tool's turn."""
    generator = torch.Generator().manual_seed(seed)
    old = -2 * torch.rand((rows, length), generator=generator, dtype=torch.float64)
    apart = [spread * (torch.rand((rows, length), generator=generator, dtype=torch.float64) - 0.5) for _ in range(2)]
    mask = (torch.rand((rows, length), generator=generator) < 0.7).double()
    mask[:, 0] = 1
    if empty_row:
        mask[0] = 0
    advantages = torch.randn((rows, 1), generator=generator, dtype=torch.float64).expand(rows, length).clone()
    logprobs = (old + apart[0]).requires_grad_(True)
    return Batch(logprobs, mask, float(mask.sum()), rows, 0.0, old, old + apart[1], advantages)


def run(name, batch, **options):
    module = leaf.find("training/objectives", name)
    return module.loss(batch, module.Options(**options))


def gradient(batch, value):
    return torch.autograd.grad(value, batch.logprobs_BT, retain_graph=True)[0]


def tokens_of(batch):
    """A list of (log π_θ, log π_old, log π_ref, A) for each row's own tokens, in plain numbers."""
    fields = ("logprobs_BT", "old_BT", "reference_BT", "advantages_BT")
    table = [getattr(batch, name).tolist() for name in fields]
    mask = batch.mask_BT.tolist()
    return [[tuple(f[b][t] for f in table) for t in range(len(row)) if row[t]] for b, row in enumerate(mask)]


def scalar_kl(token, options):
    logprob, old, reference, _ = token
    d = reference - logprob
    value = {"k1": -d, "k2": d * d / 2, "k3": math.exp(d) - d - 1}[options.get("kl", "k2")]
    weight = math.exp(logprob - old) if options.get("kl_weighted") else 1.0
    return options.get("beta", 0.0) * weight * value


def scalar_surrogate(ratio, advantage, low, high, dual=None):
    least = min(ratio * advantage, max(1 - low, min(1 + high, ratio)) * advantage)
    return max(least, dual * advantage) if dual is not None and advantage < 0 else least


def scalar(name, batch, **options):
    """The loss of a whole step, from the papers' formulas."""
    low, high, _, _ = PUBLISHED[name]
    low, high = options.get("clip_low", low), options.get("clip_high", high)
    rows, count = tokens_of(batch), sum(map(len, tokens_of(batch)))
    gains = []
    for row in rows:
        ratios = [math.exp(logprob - old) for logprob, old, _, _ in row]
        if name == "gspo":
            length = max(1, len(row))
            s = math.prod(ratios) ** (1 / length)
            advantage = row[0][3] if row else 0.0
            whole = scalar_surrogate(s, advantage, low, high, options.get("dual_clip"))
            gains.append([whole, *(-scalar_kl(token, options) / length for token in row)])
        elif name == "reinforce":
            gains.append([token[3] * token[0] - scalar_kl(token, options) for token in row])
        elif name == "cispo":
            bound = options.get("bound", 5.0)
            gains.append(
                [
                    min(r, bound) * token[3] * token[0] - scalar_kl(token, options)
                    for r, token in zip(ratios, row, strict=True)
                ]
            )
        else:
            gains.append(
                [
                    scalar_surrogate(r, token[3], low, high, options.get("dual_clip")) - scalar_kl(token, options)
                    for r, token in zip(ratios, row, strict=True)
                ]
            )
    if name == "grpo":
        return -sum(sum(row) / len(row) for row in gains if row) / len(rows)
    total = sum(map(sum, gains))
    return -total / {"gspo": len(rows), "dr_grpo": len(rows) * options.get("length", 64)}.get(name, count)


OPTIONS = [{}, {"beta": 0.3, "kl": "k1"}, {"beta": 0.3, "kl": "k2"}, {"beta": 0.3, "kl": "k3"}]
CLIPPED = sorted(set(NAMES) - {"reinforce", "cispo"})


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, options=st.sampled_from(OPTIONS), weighted=st.booleans())
def test_equals_the_scalar_formula(name, seed, options, weighted):
    given = dict(options) or {"beta": PUBLISHED[name][2], "kl": PUBLISHED[name][3]}
    if name != "reinforce" and weighted:
        given |= {"kl_weighted": True}
    given |= {"length": LENGTH} if name == "dr_grpo" else {}
    batch = random_batch(seed, empty_row=seed % 2 == 0)
    assert run(name, batch, **given)[0].item() == pytest.approx(scalar(name, batch, **given), abs=1e-12)


@pytest.mark.parametrize("name", CLIPPED)
@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, dual=st.sampled_from([None, 1.25, 3.0]))
def test_bounds_of_its_own_equal_the_scalar_formula(name, seed, dual):
    given = {"clip_low": 0.1, "clip_high": 0.35, "dual_clip": dual, "beta": 0.0}
    batch = random_batch(seed, spread=4.0)
    assert run(name, batch, **given)[0].item() == pytest.approx(scalar(name, batch, **given), abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_defaults_are_the_published_ones(name):
    options = leaf.find("training/objectives", name).Options()
    found = (getattr(options, "clip_low", None), getattr(options, "clip_high", None), options.beta, options.kl)
    assert found == PUBLISHED[name]
    assert cispo.Options().bound == 5.0 and getattr(options, "dual_clip", None) is None


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"cispo"}))
def test_gradcheck_with_every_term(name):
    given = {"beta": 0.3, "kl": "k3"} | ({"kl_weighted": True} if name != "reinforce" else {})
    given |= {"dual_clip": 1.5} if name in CLIPPED else {}
    batch = random_batch(4, rows=3, length=3)
    assert torch.autograd.gradcheck(lambda x: run(name, replace(batch, logprobs_BT=x), **given)[0], batch.logprobs_BT)


@pytest.mark.parametrize("seed", range(3))
def test_cispo_is_reinforce_with_fixed_weights(seed):
    """Its gradient is −min(ρ, c)A a token; where ρ ≤ c throughout and ρ = 1, REINFORCE's."""
    batch = random_batch(seed, spread=4.0)
    weight = (batch.logprobs_BT - batch.old_BT).exp().detach().clamp(max=1.5)
    found = gradient(batch, run("cispo", batch, bound=1.5)[0])
    assert torch.allclose(found, -weight * batch.advantages_BT * batch.mask_BT / batch.tokens, atol=1e-14)
    weighted = replace(batch, advantages_BT=batch.advantages_BT * (batch.logprobs_BT - batch.old_BT).exp().detach())
    loose, reference = run("cispo", batch, bound=100.0)[0], run("reinforce", weighted)[0]
    assert torch.allclose(gradient(batch, loose), gradient(batch, reference), atol=1e-14)


def on_policy(seed):
    batch = random_batch(seed)
    return replace(batch, old_BT=batch.logprobs_BT.detach())


@pytest.mark.parametrize("seed", range(3))
def test_on_policy_they_are_one_gradient_but_for_the_weight_of_a_token(seed):
    batch = on_policy(seed)
    found = {name: gradient(batch, run(name, batch, beta=0.0)[0]) for name in NAMES}
    plain = -batch.advantages_BT * batch.mask_BT
    for name in ("reinforce", "ppo", "dapo", "cispo"):
        assert torch.allclose(found[name], plain / batch.tokens, atol=1e-14), name
    assert torch.allclose(found["dr_grpo"], plain / (batch.sequences * 64), atol=1e-14)
    lengths = batch.mask_BT.sum(dim=1, keepdim=True)
    for name in ("grpo", "gspo"):
        assert torch.allclose(found[name], plain / (batch.sequences * lengths), atol=1e-14), name


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [3, 0, 4, 2, 1]])
def test_neither_split_nor_order_changes_loss_gradient_or_metrics(name, order):
    """Single rows here: the laws of all objectives move rows in pairs."""
    given = {"beta": 0.2} | ({"kl_weighted": True} if name != "reinforce" else {})
    batch = random_batch(9, empty_row=True)
    whole, metrics = run(name, batch, **given)
    parts = [
        run(name, replace(batch, **{f: getattr(batch, f)[rows] for f in TENSORS}), **given)
        for rows in (order[:1], order[1:4], order[4:])
    ]
    assert sum(value.item() for value, _ in parts) == pytest.approx(whole.item(), abs=1e-12)
    split = sum(gradient(batch, value) for value, _ in parts)
    assert torch.allclose(split, gradient(batch, whole), atol=1e-12, rtol=0)
    assert {key: sum(part[1][key] for part in parts) for key in metrics} == pytest.approx(metrics, abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_without_advantage_or_kl_there_is_no_gradient_at_all(name):
    batch = random_batch(2)
    value, _ = run(name, replace(batch, advantages_BT=torch.zeros_like(batch.advantages_BT)), beta=0.0)
    assert value.item() == 0 and not gradient(batch, value).any()


@pytest.mark.parametrize("name", NAMES)
def test_no_reference_is_wanted_or_read_without_kl(name):
    module = leaf.find("training/objectives", name)
    assert "reference" not in module.needs(module.Options(beta=0.0))
    assert module.needs(module.Options(beta=0.1)) == module.NEEDS and "reference" in module.NEEDS
    assert ("old" in module.NEEDS) == (name != "reinforce")
    batch = replace(random_batch(3), reference_BT=None)
    assert "kl" not in run(name, batch, beta=0.0)[1]


def one_token(ratio, advantage, reference=-1.0):
    """A batch of one token, log π_old = −1."""
    old = torch.tensor([[-1.0]], dtype=torch.float64)
    logprobs = (old + math.log(ratio)).requires_grad_(True)
    others = (torch.tensor([[value]], dtype=torch.float64) for value in (reference, advantage))
    return Batch(logprobs, torch.ones(1, 1), 1.0, 1.0, 0.0, old, *others)


@pytest.mark.parametrize(
    ("name", "ratio", "advantage", "loss", "slope", "bites"),
    [
        ("reinforce", math.e, 2.0, 0.0, -2.0, None),  # log π = 0: the value says nothing, the gradient does
        ("ppo", 1.25, 1.0, -1.2, 0.0, 1),
        ("dapo", 1.25, 1.0, -1.25, -1.25, 0),  # clip-higher: not yet
        ("dapo", 1.5, 1.0, -1.28, 0.0, 1),
        ("dapo", 0.75, -1.0, 0.8, 0.0, 1),  # the lower bound stays at .2
        ("ppo", 4.0, -1.0, 4.0, 4.0, 0),  # without bound
        ("gspo", 1.0003, 1.0, -1.0003, -1.0003, 0),
        ("gspo", 1.001, 1.0, -1.0004, 0.0, 1),
        ("gspo", 0.9995, -1.0, 0.9997, 0.0, 1),
        ("dr_grpo", 1.0, 1.0, -1 / 64, -1 / 64, 0),
        ("cispo", 0.01, 1.0, 0.01 * (1 - math.log(0.01)), -0.01, 0),  # no lower bound: weight ρ, log π = log .01 − 1
        ("cispo", math.exp(2), 1.0, -5.0, -5.0, 1),  # log π = 1, weight 5: bounded, and the gradient is there
    ],
)
def test_one_token_by_hand(name, ratio, advantage, loss, slope, bites):
    batch = one_token(ratio, advantage)
    value, metrics = run(name, batch, beta=0.0)
    assert value.item() == pytest.approx(loss) and gradient(batch, value).item() == pytest.approx(slope)
    assert metrics.get("clip_fraction") == bites
    assert name == "reinforce" or metrics["ratio_mean"] == pytest.approx(ratio)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope", "bites"),
    [
        (4.0, -2.0, 6.0, 0.0, 1),  # c·|A| = 3·2, and no push beyond
        (2.0, -2.0, 4.0, 4.0, 0),
        (0.5, -2.0, 1.6, 0.0, 1),  # PPO's own lower bound
        (4.0, 2.0, -2.4, 0.0, 1),  # PPO's own upper bound: c is for A < 0
    ],
)
def test_the_dual_clip_by_hand(ratio, advantage, loss, slope, bites):
    batch = one_token(ratio, advantage)
    value, metrics = ppo.loss(batch, ppo.Options(dual_clip=3.0))
    assert (value.item(), gradient(batch, value).item()) == pytest.approx((loss, slope))
    assert metrics["clip_fraction"] == bites


def test_dr_grpo_divides_by_a_constant_and_gspo_by_each_length():
    """Rows of 1 and 3 tokens, ρ = 1, A = 1 and −1: sums 1 − 3 over 2 · 4; means 1 − 1 over 2."""
    zeros, mask = torch.zeros(2, 3), torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    batch = Batch(zeros, mask, 4.0, 2.0, 0.0, zeros, zeros, torch.tensor([[1.0] * 3, [-1.0] * 3]))
    assert dr_grpo.loss(batch, dr_grpo.Options(length=4))[0].item() == 0.25
    assert run("ppo", batch)[0].item() == 0.5
    assert gspo.loss(batch, gspo.Options())[0].item() == 0.0


@pytest.mark.parametrize(
    ("kl", "value", "slope"),
    [("k1", -math.log(2), 1.0), ("k2", math.log(2) ** 2 / 2, -math.log(2)), ("k3", 0.306853, -1.0)],
)
def test_the_estimators_of_the_kl_by_hand(kl, value, slope):
    """d = log 2; in log π_θ the slopes are 1, −d and 1 − e^d. The metric is k3, whatever is in the loss."""
    batch = one_token(1.0, 0.0, reference=-1.0 + math.log(2))
    loss, metrics = reinforce.loss(batch, reinforce.Options(beta=0.5, kl=kl))
    assert loss.item() == pytest.approx(0.5 * value, abs=1e-6)
    assert gradient(batch, loss).item() == pytest.approx(0.5 * slope)
    assert metrics == pytest.approx({"kl": 0.306853}, abs=1e-6)


LOGITS = torch.tensor([0.3, -0.8, 1.1], dtype=torch.float64)
REFERENCE = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64).log()


def expected_gradient(kl, old, weighted):
    """The exact mean, over tokens that π_old draws, of the gradient in the logits of a distribution of three words."""
    logits = LOGITS.clone().requires_grad_(True)
    logprobs = logits.log_softmax(0)
    batch = Batch(logprobs[None], torch.ones(1, 3), 3.0, 1.0, 0.0, old[None], REFERENCE[None], torch.zeros(1, 3))
    options = policy_gradient.Clip(beta=1.0, kl=kl, kl_weighted=weighted)
    ratio = policy_gradient.log_ratio(batch).exp() if weighted else None
    penalty, _ = policy_gradient.penalty(batch, options, ratio)
    return torch.autograd.grad((old.exp() * penalty[0]).sum(), logits)[0]


def true_gradient(reverse):
    logits = LOGITS.clone().requires_grad_(True)
    logprobs = logits.log_softmax(0)
    ours, other = (REFERENCE, logprobs) if reverse else (logprobs, REFERENCE)
    return torch.autograd.grad((ours.exp() * (ours - other)).sum(), logits)[0]


def test_what_each_estimators_gradient_is_on_policy():
    old = LOGITS.log_softmax(0)
    wanted, other = true_gradient(reverse=False), true_gradient(reverse=True)
    assert torch.allclose(expected_gradient("k1", old, False), torch.zeros(3, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(expected_gradient("k2", old, False), wanted, atol=1e-12)
    assert torch.allclose(expected_gradient("k3", old, False), other, atol=1e-12)
    assert not torch.allclose(wanted, other, atol=0.05)


@pytest.mark.parametrize("kl", ["k1", "k2", "k3"])
def test_weighted_estimators_have_the_gradient_of_the_kl_whoever_sampled(kl):
    old = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64).log()
    assert torch.allclose(expected_gradient(kl, old, True), true_gradient(reverse=False), atol=1e-12)
    assert not torch.allclose(expected_gradient(kl, old, False), true_gradient(reverse=False), atol=0.01)
